"""What the learner sees: observations, world state and available actions of one game. Arguments as in rules.py.

``features`` float32 [P + 1, FEATURE_COLUMNS] holds for every unit what does not depend on the viewer; columns 1 and 2
(the position relative to the viewer) are filled in when a viewer copies a row, and the last row stays blank. ``view``
float32 [VIEW_ROWS, P] holds what one viewer sees of everybody.
"""

import math

import numpy as np

from kpg_fast.envs.smax.compiled import Scalar, device
from kpg_fast.envs.smax.lanes import copy_features, select
from kpg_fast.envs.smax.layout import (
    ALIVE,
    APART,
    ATTACK,
    ATTACK_RANGE,
    CONIC,
    CONTINUOUS,
    COOLDOWN,
    FAR,
    FIRST_ATTACK,
    HEALTH,
    MAP_SIZE,
    MAX_HEALTH,
    MOVE_X,
    MOVE_Y,
    MOVES,
    NUM_ALLIES,
    NUM_ENEMIES,
    NUM_TYPES,
    OFFSET_X,
    OFFSET_Y,
    OWN_FEATURES,
    RELOAD,
    SECTOR_SLOTS,
    SECTORS,
    SEE_ENEMY_ACTIONS,
    SIGHT,
    TYPE,
    UNIT_FEATURES,
    X,
    Y,
)
from kpg_fast.envs.smax.rules import length
from kpg_fast.envs.vec_env import Array

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_PI, _TURN = np.float32(math.pi), np.float32(2.0 * math.pi)
_NUM_SECTORS = np.float32(SECTORS)
_OFF_AXIS = np.float32(1e-8)


@device
def describe(f: Array, q: Array, s: Array, u: Scalar, features: Array) -> None:
    """Write unit u's row of ``features``."""
    row = features[u]
    kind = q[TYPE, u]
    opponents = s[NUM_ENEMIES] if u < s[NUM_ALLIES] else s[NUM_ALLIES]
    row[0] = f[HEALTH, u] / MAX_HEALTH[kind]
    row[1], row[2] = _ZERO, _ZERO
    row[3], row[4] = f[MOVE_X, u], f[MOVE_Y, u]
    row[5] = np.float32(q[ATTACK, u]) / np.float32(FIRST_ATTACK - 1 + opponents)
    row[6] = min(max(f[COOLDOWN, u] / RELOAD[kind], _ZERO), _ONE)
    for t in range(NUM_TYPES):
        row[7 + t] = _ONE if t == kind else _ZERO


@device
def write_observation(f: Array, q: Array, s: Array, u: Scalar, features: Array, view: Array, obs: Array) -> None:
    """What unit u observes, [O], once it has looked around: all zero if it is dead."""
    if not q[ALIVE, u]:
        for k in range(obs.size):
            obs[k] = _ZERO
        return
    if s[CONIC]:
        _write_sectors(f, q, s, u, features, obs[: obs.size - OWN_FEATURES])
    else:
        _write_list(q, s, u, features, view, obs)
    own = obs[obs.size - OWN_FEATURES :]
    own[0] = features[u, 0]
    own[1], own[2] = f[X, u] / MAP_SIZE, f[Y, u] / MAP_SIZE
    own[3] = features[u, 6]
    for t in range(NUM_TYPES):
        own[4 + t] = features[u, 7 + t]


@device
def look(f: Array, q: Array, u: Scalar, v: Scalar, view: Array) -> None:
    """Write column v of ``view``: where unit v is in the eyes of the living unit u; ``v`` may be a block."""
    sight = SIGHT[q[TYPE, u]]
    dx, dy = f[X, v] - f[X, u], f[Y, v] - f[Y, u]
    apart = select(q[ALIVE, v] != 0, length(dx, dy), FAR)
    seen = apart < sight
    view[OFFSET_X, v], view[OFFSET_Y, v] = select(seen, dx / sight, _ZERO), select(seen, dy / sight, _ZERO)
    view[APART, v] = apart


@device
def _write_list(q: Array, s: Array, u: Scalar, features: Array, view: Array, obs: Array) -> None:
    """Every other unit in a fixed place, zero if not seen: an ally counts units upwards, an enemy downwards."""
    allies, units = s[NUM_ALLIES], s[NUM_ALLIES] + s[NUM_ENEMIES]
    sight, hides = SIGHT[q[TYPE, u]], s[SEE_ENEMY_ACTIONS] == 0
    if u < allies:
        for v in range(u):
            _write_other(v, sight, False, features, view, obs, v * UNIT_FEATURES)
        for v in range(u + 1, units):
            _write_other(v, sight, hides and v >= allies, features, view, obs, (v - 1) * UNIT_FEATURES)
    else:
        for v in range(units - 1, u, -1):
            _write_other(v, sight, False, features, view, obs, (units - 1 - v) * UNIT_FEATURES)
        for v in range(u - 1, -1, -1):
            _write_other(v, sight, hides and v < allies, features, view, obs, (units - 2 - v) * UNIT_FEATURES)


@device
def _write_other(v: Scalar, sight: Scalar, hides: Scalar, features: Array, view: Array, obs: Array, at: Scalar) -> None:
    """Unit v in the eyes of a viewer, to ``obs[at:]``; the next place may be touched, so write them in this order."""
    copy_features(features, v if view[APART, v] < sight else features.shape[0] - 1, obs, at)
    obs[at + 1], obs[at + 2] = view[OFFSET_X, v], view[OFFSET_Y, v]
    if hides:
        hide_actions(obs, at)


@device
def hide_actions(obs: Array, at: Scalar) -> None:
    """Blank what the unit described at ``obs[at:]`` does."""
    obs[at + 3], obs[at + 4], obs[at + 5] = _ZERO, _ZERO, _ZERO


@device
def _write_sectors(f: Array, q: Array, s: Array, u: Scalar, features: Array, obs: Array) -> None:
    """32 sectors around u, the first two units of each: JaxMARL's "conic" view with its quirks.

    Unit 0 is never seen, corpses are, and an angle on a border belongs to no sector.
    """
    units = s[NUM_ALLIES] + s[NUM_ENEMIES]
    sight = SIGHT[q[TYPE, u]]
    for k in range(obs.size):
        obs[k] = _ZERO
    for v in range(1, units):
        if v == u:
            continue
        dx, dy = (f[X, v] - f[X, u]) / sight, (f[Y, v] - f[Y, u]) / sight
        if length(dx, dy) >= _ONE:
            continue
        sector = _sector(dx, dy)
        if sector < 0:
            continue
        at = sector * SECTOR_SLOTS * UNIT_FEATURES
        for _ in range(SECTOR_SLOTS):
            # the type's one-hot is what tells a taken slot from an empty one, even for a corpse
            taken = _ZERO
            for t in range(NUM_TYPES):
                taken += obs[at + 7 + t]
            if taken == _ZERO:
                for c in range(UNIT_FEATURES):
                    obs[at + c] = features[v, c]
                obs[at + 1], obs[at + 2] = dx, dy
                if not s[SEE_ENEMY_ACTIONS] and (u < s[NUM_ALLIES]) != (v < s[NUM_ALLIES]):
                    hide_actions(obs, at)
                break
            at += UNIT_FEATURES


@device
def _sector(dx: Scalar, dy: Scalar) -> Scalar:
    """The sector of a direction, or -1 on a border (compared in float32, as JaxMARL does)."""
    angle = np.float32(math.atan(dy / (dx + _OFF_AXIS)))
    if dx < _ZERO:
        angle += _PI if dy > _ZERO else -_PI
    guess = math.floor((angle + _PI) / _TURN * _NUM_SECTORS)
    for sector in range(max(guess - 1, 0), min(guess + 2, SECTORS)):
        low = _TURN * (np.float32(sector) / _NUM_SECTORS) - _PI
        high = _TURN * (np.float32(sector + 1) / _NUM_SECTORS) - _PI
        if low < angle < high:
            return sector
    return -1


@device
def write_available(f: Array, q: Array, s: Array, u: Scalar, view: Array, available: Array) -> None:
    """Which actions unit u has, [num_actions]: moves if alive, stop always, an attack on what is alive and in range."""
    allies = s[NUM_ALLIES]
    if s[CONTINUOUS]:
        for a in range(available.size):
            available[a] = True
        return
    alive = q[ALIVE, u] != 0
    for a in range(MOVES):
        available[a] = alive
    available[MOVES] = True
    opponents = s[NUM_ENEMIES] if u < allies else allies
    reach = ATTACK_RANGE[q[TYPE, u]] if alive else _ZERO
    for slot in range(opponents):
        v = allies + slot if u < allies else allies - 1 - slot
        available[FIRST_ATTACK + slot] = view[APART, v] < reach
    for a in range(FIRST_ATTACK + opponents, available.size):
        available[a] = False


@device
def write_state(f: Array, q: Array, s: Array, u: Scalar, features: Array, state: Array) -> None:
    """Unit u's part of the world state [12 N]: ten raw features (zero if dead), then its team flag and its type."""
    allies, units = s[NUM_ALLIES], s[NUM_ALLIES] + s[NUM_ENEMIES]
    row = state[u * OWN_FEATURES : (u + 1) * OWN_FEATURES]
    if q[ALIVE, u]:
        row[0] = features[u, 0]
        row[1], row[2], row[3] = f[X, u], f[Y, u], f[COOLDOWN, u]
        for t in range(NUM_TYPES):
            row[4 + t] = features[u, 7 + t]
    else:
        for c in range(OWN_FEATURES):
            row[c] = _ZERO
    state[units * OWN_FEATURES + u] = _ZERO if u < allies else _ONE
    state[units * (OWN_FEATURES + 1) + u] = np.float32(q[TYPE, u])
