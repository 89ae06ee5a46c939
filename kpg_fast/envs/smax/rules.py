"""The rules of SMAX, as small functions of "what happens to unit u", shared by every driver.

Sources: JaxMARL 0.2.0 (Rutherford et al. 2023), whose arithmetic (float32) and order of events these follow. A driver
(cpu.py, cuda.py) calls them phase by phase for all units; between two phases every unit has to be through. Arguments
everywhere: ``f`` float32 [FLOAT_ROWS, P] and ``q`` int32 [INT_ROWS, P], one game's state (layout.py), ``s`` the
settings, ``u`` the unit. A function writes only to column u unless it says otherwise.
"""

import math

import numpy as np

from kpg_fast.envs.smax.compiled import Scalar, device, multiply_add
from kpg_fast.envs.smax.lanes import select
from kpg_fast.envs.smax.layout import (
    AIM,
    ALIVE,
    ATTACK_DAMAGE,
    ATTACK_RANGE,
    BEFORE,
    COOLDOWN,
    DAMAGE,
    DT,
    FAR,
    HEALTH,
    MAP_SIZE,
    MAX_HEALTH,
    MOVE_X,
    MOVE_Y,
    NEXT_X,
    NEXT_Y,
    NUM_ALLIES,
    NUM_ENEMIES,
    PACE,
    RELOAD,
    SELF_PLAY_REWARD,
    STRIDE_X,
    STRIDE_Y,
    TYPE,
    WAIT,
    WALLS_KILL,
    WIDEST,
    WIN_BONUS,
    X,
    Y,
)
from kpg_fast.envs.vec_env import Array

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_SIXTEENTH = np.float32(1 / 16)
_MARGIN = np.float32(1.001)  # of rounding
_TOUCHING = np.float32(1e-6)  # keeps two units on one spot from dividing by zero


@device
def length(dx: Scalar, dy: Scalar) -> Scalar:
    """Of a vector."""
    return math.sqrt(multiply_add(dx, dx, dy * dy))


@device
def distance(f: Array, u: Scalar, v: Scalar) -> Scalar:
    """Between the centres of two units."""
    dx, dy = f[X, u] - f[X, v], f[Y, u] - f[Y, v]
    return length(dx, dy)


@device
def begin_step(f: Array, u: Scalar) -> None:
    """After the orders: keep the health for the reward, and what a tick of movement comes to. ``u`` may be a block."""
    f[BEFORE, u] = f[HEALTH, u]
    f[STRIDE_X, u] = f[MOVE_X, u] * f[PACE, u]
    f[STRIDE_Y, u] = f[MOVE_Y, u] * f[PACE, u]


@device
def ready(f: Array, q: Array, u: Scalar) -> Scalar:
    """Phase 1: whether unit u lives, is told to shoot and has its weapon loaded. ``u`` may be a block."""
    return (q[AIM, u] >= 0) & (q[ALIVE, u] != 0) & (f[COOLDOWN, u] <= _ZERO)


@device
def in_reach(f: Array, q: Array, u: Scalar) -> Scalar:
    """Phase 1: whether a unit that is ready can hit what it aims at, judged by the state at the tick's start."""
    aim = q[AIM, u]
    return q[ALIVE, aim] != 0 and distance(f, u, aim) < ATTACK_RANGE[q[TYPE, u]]


@device
def reload_weapon(f: Array, q: Array, u: Scalar, deviation: Scalar) -> None:
    """What follows a shot of unit u: the type's cooldown and a deviation, uniform in [-DT, 2 DT).

    The sum is written as JaxMARL's, old + (new - old), which rounds differently from an assignment.
    """
    old = f[COOLDOWN, u]
    f[COOLDOWN, u] = old + ((RELOAD[q[TYPE, u]] + deviation) - old)
    f[WAIT, u] = _ZERO


@device
def shot_damage(q: Array, u: Scalar) -> Scalar:
    """What a shot of unit u takes from its victim's health; whole numbers, so sums are exact in any order."""
    return ATTACK_DAMAGE[q[TYPE, u]]


@device
def advance(f: Array, q: Array, s: Array, u: Scalar) -> None:
    """Phase 2, when all shots are fired: move, take the damage, die at zero health or at a wall; the weapon cools.

    Only the living move; the map's border stops them. The dead leave the collision test. ``u`` may be a block.
    """
    alive = q[ALIVE, u] != 0
    x, y = f[X, u], f[Y, u]
    moved_x = min(max(x + f[STRIDE_X, u], _ZERO), MAP_SIZE)
    moved_y = min(max(y + f[STRIDE_Y, u], _ZERO), MAP_SIZE)
    x, y = select(alive, moved_x, x), select(alive, moved_y, y)
    at_wall = (x <= _ZERO) | (y <= _ZERO) | (x >= MAP_SIZE) | (y >= MAP_SIZE)
    health = max(f[HEALTH, u] - f[DAMAGE, u], _ZERO)
    health = select(at_wall & (s[WALLS_KILL] != 0), _ZERO, health)
    alive = health > _ZERO
    f[HEALTH, u] = health
    f[DAMAGE, u] = _ZERO
    f[COOLDOWN, u] = f[COOLDOWN, u] - f[WAIT, u]
    f[WAIT, u] = DT
    q[ALIVE, u] = alive
    f[X, u], f[Y, u] = x, y
    f[NEXT_X, u] = select(alive, x, FAR)
    f[NEXT_Y, u] = select(alive, y, FAR)


@device
def overlap(dx: Scalar, dy: Scalar, reach: Scalar) -> Scalar:
    """Phase 3, for living units: the share of their offset (dx, dy) by which they interpenetrate, or 0.

    With ``reach`` the sum of the radii, a unit moves by half of the sum of offset * overlap over all others, read from
    NEXT and summed in ascending order; so a pair comes apart to just touching. Nothing keeps a unit on the map.
    """
    return max(reach / (length(dx, dy) + _TOUCHING) - _ONE, _ZERO)


@device
def danger(s: Array, radius: Scalar) -> Scalar:
    """The squared distance from which on nobody touches a unit of this radius."""
    reach = radius + np.float32(s[WIDEST]) * _SIXTEENTH
    return reach * reach * _MARGIN


@device
def near(dx: Scalar, dy: Scalar, limit: Scalar) -> Scalar:
    """Whether ``overlap`` may be above 0 for an offset other than (0, 0); cheap, and wrong on the safe side only.

    ``limit`` is the ``danger`` of one of the two.
    """
    squared = multiply_add(dx, dx, dy * dy)
    return (squared < limit) & (squared > _ZERO)


@device
def team_alive(q: Array, begin: Scalar, end: Scalar) -> Scalar:
    """Whether any of the units begin..end-1 lives."""
    alive = 0
    for u in range(begin, end):
        alive += q[ALIVE, u]
    return alive > 0


@device
def team_reward(f: Array, q: Array, s: Array, team: Scalar, lost: Scalar, won: Scalar) -> Scalar:
    """The reward of team 0 (allies) or 1: the share of the opponents' health lost, and a bonus for the victory.

    ``lost`` and ``won``: whether nobody of the team, or of its opponents, is left.
    """
    allies, units = s[NUM_ALLIES], s[NUM_ALLIES] + s[NUM_ENEMIES]
    begin, end = (allies, units) if team == 0 else (0, allies)
    reward = _ZERO
    if s[SELF_PLAY_REWARD]:
        if lost and not won:
            reward = -WIN_BONUS
    else:
        for v in range(begin, end):
            reward += (f[HEALTH, v] - f[BEFORE, v]) / MAX_HEALTH[q[TYPE, v]]
        reward = abs(reward) / np.float32(end - begin)
    if won and not lost:
        reward += WIN_BONUS
    return reward
