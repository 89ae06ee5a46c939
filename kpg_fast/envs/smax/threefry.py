"""JAX's random numbers in numpy, to start and to replay the very episodes of JaxMARL 0.2.0.

Threefry-2x32 with 20 rounds (Salmon et al. 2011) under jax_threefry_partitionable=True, JAX's default. Keys are uint32
[..., 2]; every function takes a batch of them. Slow: an option for comparisons.
"""

import numpy as np

from kpg_fast.envs.smax.layout import DT, MAP_SIZE, NUM_TYPES, TICKS
from kpg_fast.envs.smax.scenario import Scenario
from kpg_fast.envs.vec_env import Array

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_CORNERS = np.array([[0, 0], [0, MAP_SIZE], [MAP_SIZE, 0], [MAP_SIZE, MAP_SIZE]], np.float32)
_HALF_MAP = np.float32(MAP_SIZE / 2)


def prng_key(seed: int) -> Array:
    """``jax.random.PRNGKey(seed)`` for 0 <= seed < 2**64: uint32 [2]; JAX needs its 64-bit numbers above 2**32."""
    return np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)


def split(keys: Array, num: int = 2) -> Array:
    """``jax.random.split``: [..., 2] -> [..., num, 2]."""
    return np.stack(_threefry(keys, num), axis=-1)


def bits(keys: Array, num: int) -> Array:
    """``jax.random.bits``: uint32 [..., num]."""
    first, second = _threefry(keys, num)
    return first ^ second


def uniform(keys: Array, num: int, low: float = 0.0, high: float = 1.0) -> Array:
    """``jax.random.uniform``: float32 [..., num] in [low, high)."""
    low_32, high_32 = np.float32(low), np.float32(high)
    unit = ((bits(keys, num) >> np.uint32(9)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1.0)
    scaled: Array = np.maximum(low_32, unit * (high_32 - low_32) + low_32)
    return scaled


def choice(keys: Array, num: int, among: int) -> Array:
    """``jax.random.categorical`` with equal weights: int64 [..., num] in 0..among-1."""
    chosen: Array = uniform(keys, num * among).reshape(*keys.shape[:-1], num, among).argmax(-1)
    return chosen


def coin(keys: Array) -> Array:
    """``jax.random.randint(key, (), 0, 2)``: bool [...]."""
    odd: Array = bits(split(keys)[..., 1, :], 1)[..., 0] % 2 == 1
    return odd


def _threefry(keys: Array, num: int) -> tuple[Array, Array]:
    """The block function of every key on counters 0..num-1: two uint32 [..., num]."""
    key_0, key_1 = keys[..., 0, None], keys[..., 1, None]
    schedule = (key_0, key_1, key_0 ^ key_1 ^ _PARITY)
    x_0 = np.broadcast_to(key_0, (*keys.shape[:-1], num)).copy()
    x_1 = key_1 + np.arange(num, dtype=np.uint32)
    for block in range(5):
        for turn in _ROTATIONS[block % 2]:
            x_0 = x_0 + x_1
            x_1 = (x_1 << np.uint32(turn)) | (x_1 >> np.uint32(32 - turn))
            x_1 = x_1 ^ x_0
        x_0 = x_0 + schedule[(block + 1) % 3]
        x_1 = x_1 + schedule[(block + 2) % 3] + np.uint32(block + 1)
    return x_0, x_1


def start_positions(keys: Array, scenario: Scenario) -> tuple[Array, Array]:
    """Where and as what JaxMARL's ``HeuristicEnemySMAX.reset(key)`` puts the units, before the collision push.

    Args:
        keys: uint32 [E, 2].
        scenario: whose armies.

    Returns:
        Positions float32 [E, N, 2] and unit types int32 [E, N].
    """
    return two_team_start_positions(split(keys)[:, 1], scenario)


def two_team_start_positions(keys: Array, scenario: Scenario) -> tuple[Array, Array]:
    """The same for ``SMAX.reset(key)``, the game that both teams learn."""
    allies, enemies = scenario.num_allies, scenario.num_enemies
    children = split(keys, 3)
    position_children = split(children[:, 0])
    if scenario.random_positions:
        positions = _smacv2_positions(position_children[:, 1], allies, enemies)
    else:
        centre = np.array([MAP_SIZE / 4, _HALF_MAP], np.float32)
        ally = centre + _pairs(children[:, 1], allies, -2.0, 2.0)
        enemy = centre * np.array([3, 1], np.float32) + _pairs(children[:, 2], enemies, -2.0, 2.0)
        positions = np.concatenate([ally, enemy], axis=1)
    types = np.tile(np.array(scenario.ally_types + scenario.enemy_types, np.int32), (len(keys), 1))
    if scenario.random_types:
        drawn = choice(split(split(position_children[:, 0])[:, 1])[:, 1], allies, NUM_TYPES)
        types[:, :allies] = drawn
        mirrored = min(allies, enemies)
        types[:, allies : allies + mirrored] = drawn[:, :mirrored]
    return positions, types


def _pairs(keys: Array, num: int, low: float, high: float) -> Array:
    return uniform(keys, 2 * num, low, high).reshape(*keys.shape[:-1], num, 2)


def _smacv2_positions(keys: Array, allies: int, enemies: int) -> Array:
    draw, surround, reflect = np.moveaxis(split(keys, 3), 1, 0)
    surrounds = uniform(draw, 1) < 0.5
    return np.where(surrounds[..., None], _surround(surround, allies, enemies), _reflect(reflect, allies, enemies))


def _surround(keys: Array, allies: int, enemies: int) -> Array:
    children = split(keys, 3)
    inside, outside = _inside_and_outside(children[:, 1], allies, enemies)
    allies_inside = np.concatenate([inside, outside], axis=1)
    inside, outside = _inside_and_outside(children[:, 2], enemies, allies)
    enemies_inside = np.concatenate([outside, inside], axis=1)
    return np.where(coin(children[:, 0])[:, None, None], allies_inside, enemies_inside)


def _inside_and_outside(keys: Array, num_inside: int, num_outside: int) -> tuple[Array, Array]:
    """One team around the centre, the other in four groups between it and the corners."""
    draws = []
    for _ in range(4):
        children = split(keys)
        keys, draw = children[:, 0], children[:, 1]
        draws.append(draw)
    inside = _HALF_MAP + _pairs(draws[0], num_inside, -2.0, 2.0)
    groups = choice(draws[1], num_outside, len(_CORNERS))
    t = uniform(draws[2], len(_CORNERS))[..., None]
    points = t * _HALF_MAP + (1 - t) * _CORNERS
    outside = np.take_along_axis(points, groups[..., None], axis=1) + _pairs(draws[3], num_outside, -2.0, 2.0)
    return inside, outside


def _reflect(keys: Array, allies: int, enemies: int) -> Array:
    """Allies in the left half, enemies their mirror image; enemies without a twin anywhere in the right half."""
    children = split(keys)
    half = np.array([MAP_SIZE / 2, MAP_SIZE], np.float32)
    ally = _pairs(children[:, 1], allies, 0.0, 1.0) * half
    twins = ally[:, :enemies] * np.array([-1, 1], np.float32) + np.array([MAP_SIZE, 0], np.float32)
    others = _pairs(children[:, 0], max(enemies - allies, 0), 0.0, 1.0) * half + half * np.array([1, 0], np.float32)
    return np.concatenate([ally, twins, others], axis=1)


def script_draws(keys: Array, num_enemies: int) -> tuple[Array, Array]:
    """``u_target``, ``u_attack`` (both [E, num_enemies]) of the scripted enemy in ``step_env(key)``."""
    enemy_children = split(split(split(keys)[:, 1], num_enemies))
    return uniform(enemy_children[..., 0, :], 1)[..., 0], uniform(enemy_children[..., 1, :], 1)[..., 0]


def cooldown_deviations(keys: Array, num_units: int) -> Array:
    """``cd_dev`` [E, 8, N] seconds; ``keys`` are what the eight ticks of the step begin with."""
    rows = []
    for _ in range(TICKS):
        children = split(keys)
        keys = children[:, 0]
        rows.append(uniform(split(children[:, 1], num_units), 1, -float(DT), 2 * float(DT))[..., 0])
    return np.stack(rows, axis=1)
