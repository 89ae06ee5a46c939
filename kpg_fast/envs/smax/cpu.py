"""The CPU driver: every thread plays a share of the games, phase by phase, with the rules of rules.py.

A driver also decides where random numbers come from: the counter-based generator, or arrays given by a test (empty
arrays mean the generator).
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit, prange

from kpg_fast.envs.smax.compiled import Scalar, device, multiply_add
from kpg_fast.envs.smax.lanes import bits, block, lowest_bit, select, spread
from kpg_fast.envs.smax.layout import (
    ALIVE,
    APART,
    CONTINUOUS,
    COUNT,
    DAMAGE,
    DT,
    EPISODE,
    FIRST_ENV,
    FOR_COOLDOWN,
    KEEP_ENDED,
    LANES,
    LIMIT_IS_TERMINAL,
    MAX_STEPS,
    NEXT_X,
    NEXT_Y,
    NUM_AGENTS,
    NUM_ALLIES,
    NUM_ENEMIES,
    RADIUS,
    SELF_PLAY,
    STEP,
    TICKS,
    VICTIM,
    X,
    Y,
)
from kpg_fast.envs.smax.observe import describe, look, write_available, write_observation, write_state
from kpg_fast.envs.smax.orders import order_continuous, order_discrete, order_script, spot
from kpg_fast.envs.smax.philox import philox, uniform
from kpg_fast.envs.smax.rules import (
    advance,
    begin_step,
    danger,
    in_reach,
    near,
    overlap,
    ready,
    reload_weapon,
    shot_damage,
    team_alive,
    team_reward,
)
from kpg_fast.envs.smax.spawn import settle, spawn
from kpg_fast.envs.vec_env import Array

_ZERO, _HALF = np.float32(0.0), np.float32(0.5)
_THREE_TICKS = np.float32(3.0) * DT
_WORD = 64  # bits


@device
def _give_orders(f: Array, q: Array, s: Array, action: Array, vector: Array, spotted: Array, draws: Any) -> None:
    """The learner's actions (numbers ``action`` [N] or vectors ``vector`` [N, 4]), then the script's.

    ``draws`` is (seed, env, clock, given): given [N_units, 2] replaces the two draws of a unit if it is not empty.
    """
    for u in range(s[NUM_ALLIES] + s[NUM_ENEMIES]):
        if u >= s[NUM_AGENTS]:
            for first in range(0, s[NUM_ALLIES], LANES):
                spot(f, q, u, block(first), spotted)
            order_script(f, q, s, u, spotted, draws)
        elif s[CONTINUOUS]:
            order_continuous(f, q, s, u, vector[u], draws)
        else:
            order_discrete(f, q, s, u, action[u])


@device
def cooldown_deviation(seed: Scalar, env: Scalar, clock: Scalar, tick: Scalar, u: Scalar, given: Array) -> Scalar:
    """Uniform in [-DT, 2 DT): ``given`` [TICKS, N_units], or a word of the block that four ticks share."""
    if given.size:
        return given[tick, u]
    words = philox(seed, env, clock, u + (tick // 4 << 16), FOR_COOLDOWN)
    return uniform(words[tick % 4]) * _THREE_TICKS - DT


@device
def _touching(f: Array, x: Scalar, y: Scalar, limit: Scalar, begin: Scalar, end: Scalar) -> Scalar:
    """Which of the units begin..end-1, 64 at most, may touch any of the block at (x, y); ``begin`` in the lowest bit.

    Asked for all of them before any is acted on: a branch for each was mispredicted too often.
    """
    found = np.uint64(0)
    for v in range(begin, end):
        close = bits(near(x - f[NEXT_X, v], y - f[NEXT_Y, v], limit)) != 0
        found |= np.uint64(close) << np.uint64(v - begin)
    return found


@device
def _push_apart(f: Array, q: Array, s: Array) -> None:
    """The collision push of all units, from NEXT to the position; every unit's pushes are summed in ascending order."""
    units = s[NUM_ALLIES] + s[NUM_ENEMIES]
    for first in range(0, f.shape[1], LANES):
        u = block(first)
        x, y, radius, zero = f[NEXT_X, u], f[NEXT_Y, u], f[RADIUS, u], spread(_ZERO)
        push_x, push_y, limit = zero, zero, danger(s, radius)
        for begin in range(0, units, _WORD):
            left = _touching(f, x, y, limit, begin, min(begin + _WORD, units))
            while left:
                v = begin + lowest_bit(left)
                left &= left - np.uint64(1)
                dx, dy = x - f[NEXT_X, v], y - f[NEXT_Y, v]
                share = overlap(dx, dy, radius + f[RADIUS, v])
                push_x, push_y = multiply_add(dx, share, push_x), multiply_add(dy, share, push_y)
        alive = q[ALIVE, u] != 0
        f[X, u] = select(alive, x + push_x * _HALF, f[X, u])
        f[Y, u] = select(alive, y + push_y * _HALF, f[Y, u])


@device
def _tick(f: Array, q: Array, s: Array, seed: Scalar, env: Scalar, clock: Scalar, tick: Scalar, given: Array) -> None:
    """A sixteenth of a second for all units."""
    for first in range(0, f.shape[1], LANES):
        left = bits(ready(f, q, block(first)))
        while left:
            u = first + lowest_bit(left)
            left &= left - np.uint64(1)
            if in_reach(f, q, u):
                reload_weapon(f, q, u, cooldown_deviation(seed, env, clock, tick, u, given))
                if q[VICTIM, u] >= 0:
                    f[DAMAGE, q[VICTIM, u]] += shot_damage(q, u)
    for first in range(0, f.shape[1], LANES):
        advance(f, q, s, block(first))
    _push_apart(f, q, s)


@device
def _begin_episode(
    f: Array, q: Array, c: Array, s: Array, seed: Scalar, env: Scalar, kinds: Array, place: Array, given_kinds: Array
) -> None:
    """New units on drawn places, or, unless they are empty, at ``place`` [N_units, 2] and of ``given_kinds``."""
    units = s[NUM_ALLIES] + s[NUM_ENEMIES]
    for u in range(units):
        if place.size:
            settle(f, q, u, given_kinds[u], place[u, 0], place[u, 1])
        else:
            spawn(f, q, s, u, kinds, seed, env, c[COUNT])
    _push_apart(f, q, s)
    c[STEP] = 0
    c[COUNT] += 1
    c[EPISODE] += 1


@device
def _present(f: Array, q: Array, s: Array, scratch: Any, obs: Array, state: Array, avail: Array, alive: Array) -> None:
    """Everything the next action is chosen from."""
    features, view = scratch
    for u in range(s[NUM_ALLIES] + s[NUM_ENEMIES]):
        describe(f, q, s, u, features)
        write_state(f, q, s, u, features, state)
    for u in range(s[NUM_AGENTS]):
        for first in range(0, f.shape[1], LANES):
            look(f, q, u, block(first), view)
        write_observation(f, q, s, u, features, view, obs[u])
        write_available(f, q, s, u, view, avail[u])
        alive[u] = q[ALIVE, u] != 0


@device
def _present_share(
    first: Scalar,
    end: Scalar,
    games: Any,
    s: Array,
    seed: Scalar,
    kinds: Array,
    restart: Array,
    given: Any,
    scratch: Any,
    next_: Any,
) -> None:
    """Games first..end-1: a new episode where asked for, then what the next action is chosen from."""
    f, q, c = games
    place, given_kinds = given
    obs, state, avail, alive = next_
    for e in range(first, end):
        if restart[e]:
            _begin_episode(f[e], q[e], c[e], s, seed, s[FIRST_ENV] + e, kinds, place[e], given_kinds[e])
        _present(f[e], q[e], s, scratch, obs[e], state[e], avail[e], alive[e])


@device
def _step_share(
    first: Scalar,
    end: Scalar,
    games: Any,
    s: Array,
    seed: Scalar,
    kinds: Array,
    actions: Any,
    given: Any,
    scratch: Any,
    next_: Any,
    outcome: Any,
    last: Any,
) -> None:
    """One environment step of games first..end-1, auto-reset included."""
    f, q, c = games
    numbers, vectors = actions
    obs, state, avail, alive = next_
    reward, enemy_reward, terminated, truncated, won, valid = outcome
    last_obs, last_state = last
    draws, deviations = given
    allies, units = s[NUM_ALLIES], s[NUM_ALLIES] + s[NUM_ENEMIES]
    for e in range(first, end):
        env, clock = s[FIRST_ENV] + e, c[e, COUNT]
        fe, qe, ce = f[e], q[e], c[e]
        _give_orders(fe, qe, s, numbers[e], vectors[e], scratch[1][APART], (seed, env, clock, draws[e]))
        for first_unit in range(0, fe.shape[1], LANES):
            begin_step(fe, block(first_unit))
        for tick in range(TICKS):
            _tick(fe, qe, s, seed, env, clock, tick, deviations[e])
        over_limit = ce[STEP] + (0 if s[LIMIT_IS_TERMINAL] else 1) >= s[MAX_STEPS]
        ce[STEP] += 1
        ce[COUNT] += 1
        allies_alive, enemies_alive = team_alive(qe, 0, allies), team_alive(qe, allies, units)
        decided = not (allies_alive and enemies_alive)
        reward[e] = team_reward(fe, qe, s, 0, not allies_alive, not enemies_alive)
        if s[SELF_PLAY]:
            enemy_reward[e] = team_reward(fe, qe, s, 1, not enemies_alive, not allies_alive)
        terminated[e] = decided or (over_limit and s[LIMIT_IS_TERMINAL] != 0)
        truncated[e] = over_limit and not terminated[e]
        won[e] = allies_alive and not enemies_alive
        valid[e] = True
        if terminated[e] or truncated[e]:
            _present(fe, qe, s, scratch, last_obs[e], last_state[e], avail[e], alive[e])
            if not s[KEEP_ENDED]:
                _begin_episode(fe, qe, ce, s, seed, env, kinds, draws[e, :0], kinds[:0])
        _present(fe, qe, s, scratch, obs[e], state[e], avail[e], alive[e])


def _digest() -> Scalar:
    """Of this folder's rules. numba looks only at a function's own file when it asks whether its cache is stale."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return int.from_bytes(hashlib.sha256(code).digest()[:6], "little")


def _compile(digest: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two entry points. ``digest`` is a closed-over constant, thereby part of the key of numba's cache."""

    @njit(parallel=True, nogil=True, cache=True)
    def present(games, s, seed, kinds, restart, given, scratch, next_):  # type: ignore[no-untyped-def]
        envs, shares = len(restart), len(scratch[0])
        for k in prange(shares):
            first, end = k * envs // shares, (k + 1) * envs // shares
            _present_share(first, end, games, s, seed, kinds, restart, given, (scratch[0][k], scratch[1][k]), next_)
        return digest

    @njit(parallel=True, nogil=True, cache=True)
    def step(games, s, seed, kinds, actions, given, scratch, next_, outcome, last):  # type: ignore[no-untyped-def]
        envs, shares = len(outcome[0]), len(scratch[0])
        for k in prange(shares):
            first, end = k * envs // shares, (k + 1) * envs // shares
            mine = (scratch[0][k], scratch[1][k])
            _step_share(first, end, games, s, seed, kinds, actions, given, mine, next_, outcome, last)
        return digest

    return present, step


present, step = _compile(_digest())
