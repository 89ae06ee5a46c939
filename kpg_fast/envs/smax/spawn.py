"""The start of an episode: where units stand and what they are. Arguments as in rules.py.

Everything is drawn from (environment, clock, unit), so each unit can be placed on its own.
"""

import numpy as np

from kpg_fast.envs.smax.compiled import Scalar, device
from kpg_fast.envs.smax.layout import (
    ALIVE,
    ATTACK,
    COOLDOWN,
    DT,
    FOR_SPAWN,
    FOR_SPAWN_GROUP,
    FOR_SPAWN_SHAPE,
    GOAL_X,
    GOAL_Y,
    HEALTH,
    MAP_SIZE,
    MAX_HEALTH,
    MOVE_X,
    MOVE_Y,
    NEXT_X,
    NEXT_Y,
    NUM_ALLIES,
    NUM_TYPES,
    PACE,
    RADIUS,
    RANDOM_POSITIONS,
    RANDOM_TYPES,
    SLOT,
    SPEED,
    TYPE,
    UNIT_RADIUS,
)
from kpg_fast.envs.smax.philox import philox, uniform
from kpg_fast.envs.vec_env import Array

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_HALF_MAP, _QUARTER_MAP = np.float32(MAP_SIZE / 2), np.float32(MAP_SIZE / 4)
_NOISE = np.float32(2.0)
_TYPES = np.float32(NUM_TYPES)


@device
def spawn(f: Array, q: Array, s: Array, u: Scalar, kinds: Array, seed: Scalar, env: Scalar, clock: Scalar) -> None:
    """Put unit u, of type ``kinds[u]`` unless types are random, on its start position (in NEXT, before the push)."""
    allies = s[NUM_ALLIES]
    own = philox(seed, env, clock, u, FOR_SPAWN)
    x, y = uniform(own[0]), uniform(own[1])
    if s[RANDOM_POSITIONS]:
        x, y = _smacv2_position(allies, u, x, y, own[2], seed, env, clock)
    else:
        x = _noise(x) + (_QUARTER_MAP if u < allies else MAP_SIZE - _QUARTER_MAP)
        y = _noise(y) + _HALF_MAP
    kind = kinds[u]
    if s[RANDOM_TYPES]:
        kind = _mirrored_type(allies, u, kind, seed, env, clock)
    settle(f, q, u, kind, x, y)


@device
def settle(f: Array, q: Array, u: Scalar, kind: Scalar, x: Scalar, y: Scalar) -> None:
    """A fresh unit of a type at (x, y), still to be pushed apart from its neighbours."""
    f[NEXT_X, u], f[NEXT_Y, u] = x, y
    f[HEALTH, u] = MAX_HEALTH[kind]
    f[RADIUS, u] = UNIT_RADIUS[kind]
    f[PACE, u] = SPEED[kind] * DT
    f[COOLDOWN, u] = _ZERO
    f[MOVE_X, u], f[MOVE_Y, u] = _ZERO, _ZERO
    f[GOAL_X, u], f[GOAL_Y, u] = _ZERO, _ZERO
    q[TYPE, u] = kind
    q[ALIVE, u] = 1
    q[ATTACK, u] = 0
    q[SLOT, u] = -1


@device
def _noise(draw: Scalar) -> Scalar:
    return draw * (_NOISE + _NOISE) - _NOISE


@device
def _smacv2_position(
    allies: Scalar, u: Scalar, x: Scalar, y: Scalar, group_word: Scalar, seed: Scalar, env: Scalar, clock: Scalar
) -> Scalar:
    """SMACv2's two start shapes, each with probability 1/2.

    Surround: one team, by a fair coin, around the centre; the other in four groups somewhere between the centre and
    the corners. Reflect: allies anywhere in the left half, enemy i the mirror image of ally i (others in the right
    half at random).
    """
    shape = philox(seed, env, clock, 0, FOR_SPAWN_SHAPE)
    if uniform(shape[0]) < np.float32(0.5):
        allies_inside = uniform(shape[1]) < np.float32(0.5)
        centre_x, centre_y = _HALF_MAP, _HALF_MAP
        if allies_inside != (u < allies):
            corner = group_word >> np.uint32(30)
            t = uniform(philox(seed, env, clock, corner, FOR_SPAWN_GROUP)[0])
            corner_x = MAP_SIZE if corner >= 2 else _ZERO
            corner_y = MAP_SIZE if corner % 2 == 1 else _ZERO
            centre_x = t * _HALF_MAP + (_ONE - t) * corner_x
            centre_y = t * _HALF_MAP + (_ONE - t) * corner_y
        return centre_x + _noise(x), centre_y + _noise(y)
    if u < allies:
        return x * _HALF_MAP, y * MAP_SIZE
    if u < 2 * allies:
        twin = philox(seed, env, clock, u - allies, FOR_SPAWN)
        return MAP_SIZE - uniform(twin[0]) * _HALF_MAP, uniform(twin[1]) * MAP_SIZE
    return _HALF_MAP + x * _HALF_MAP, y * MAP_SIZE


@device
def _mirrored_type(allies: Scalar, u: Scalar, otherwise: Scalar, seed: Scalar, env: Scalar, clock: Scalar) -> Scalar:
    """A random type for an ally and the same one for its mirror image; enemies without a twin keep theirs."""
    if u >= 2 * allies:
        return otherwise
    word = philox(seed, env, clock, u % allies, FOR_SPAWN)[3]
    return int(uniform(word) * _TYPES)
