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
from kpg_fast.envs.smax.layout import (
    ALIVE,
    CONTINUOUS,
    COUNT,
    DAMAGE,
    DT,
    EPISODE,
    FIRST_ENV,
    FOR_CONTINUOUS,
    FOR_COOLDOWN,
    FOR_ENEMY,
    KEEP_ENDED,
    LIMIT_IS_TERMINAL,
    MAX_STEPS,
    NEXT_X,
    NEXT_Y,
    NUM_AGENTS,
    NUM_ALLIES,
    NUM_ENEMIES,
    PUSH_X,
    PUSH_Y,
    RADIUS,
    STEP,
    TICKS,
    VICTIM,
    X,
    Y,
)
from kpg_fast.envs.smax.observe import describe, write_available, write_observation, write_state
from kpg_fast.envs.smax.orders import order_continuous, order_discrete, order_script
from kpg_fast.envs.smax.philox import philox, uniform
from kpg_fast.envs.smax.rules import (
    begin_step,
    begin_tick,
    fires,
    overlap,
    reload_weapon,
    shot_damage,
    suffer,
    team_alive,
    team_reward,
)
from kpg_fast.envs.smax.spawn import settle, spawn
from kpg_fast.envs.vec_env import Array

_ZERO, _HALF = np.float32(0.0), np.float32(0.5)
_THREE_TICKS = np.float32(3.0) * DT


@device
def _give_orders(
    f: Array, q: Array, s: Array, seed: Scalar, env: Scalar, clock: Scalar, action: Array, vector: Array, given: Array
) -> None:
    """The learner's actions (numbers ``action`` [N] or vectors ``vector`` [N, 4]), then the script's.

    ``given`` [N_units, 2] replaces the two draws of a unit if it is not empty.
    """
    for u in range(s[NUM_ALLIES] + s[NUM_ENEMIES]):
        scripted = u >= s[NUM_AGENTS]
        if not scripted and not s[CONTINUOUS]:
            order_discrete(f, q, s, u, action[u])
            continue
        if given.size:
            first, second = given[u, 0], given[u, 1]
        else:
            words = philox(seed, env, clock, u, FOR_ENEMY if scripted else FOR_CONTINUOUS)
            first, second = uniform(words[0]), uniform(words[1])
        if scripted:
            order_script(f, q, s, u, first, second)
        else:
            order_continuous(f, q, s, u, vector[u], first, second)


@device
def _cooldown_deviation(seed: Scalar, env: Scalar, clock: Scalar, tick: Scalar, u: Scalar, given: Array) -> Scalar:
    """Uniform in [-DT, 2 DT): ``given`` [TICKS, N_units], or a word of the block that four ticks share."""
    if given.size:
        return given[tick, u]
    words = philox(seed, env, clock, u + (tick // 4 << 16), FOR_COOLDOWN)
    return uniform(words[tick % 4]) * _THREE_TICKS - DT


@device
def _push_apart(f: Array, q: Array, units: Scalar) -> None:
    """The collision push of all units, from NEXT to the position.

    The inner loop runs over the pushed units, padding included, so that it compiles to vectors without changing the
    order in which any unit's pushes are summed.
    """
    x, y, radius, push_x, push_y = f[NEXT_X], f[NEXT_Y], f[RADIUS], f[PUSH_X], f[PUSH_Y]
    for u in range(x.size):
        push_x[u], push_y[u] = _ZERO, _ZERO
    for v in range(units):
        if not q[ALIVE, v]:
            continue
        x_v, y_v, radius_v = x[v], y[v], radius[v]
        for u in range(x.size):
            dx, dy = x[u] - x_v, y[u] - y_v
            share = overlap(dx, dy, radius[u] + radius_v)
            push_x[u] = multiply_add(dx, share, push_x[u])
            push_y[u] = multiply_add(dy, share, push_y[u])
    for u in range(units):
        if q[ALIVE, u]:
            f[X, u] = x[u] + push_x[u] * _HALF
            f[Y, u] = y[u] + push_y[u] * _HALF


@device
def _tick(f: Array, q: Array, s: Array, seed: Scalar, env: Scalar, clock: Scalar, tick: Scalar, given: Array) -> None:
    """A sixteenth of a second for all units."""
    units, columns = s[NUM_ALLIES] + s[NUM_ENEMIES], f.shape[1]
    for u in range(columns):
        begin_tick(f, q, u)
    for u in range(units):
        fired = fires(f, q, u)
        deviation = DT
        if fired:
            deviation = _cooldown_deviation(seed, env, clock, tick, u, given)
            if q[VICTIM, u] >= 0:
                f[DAMAGE, q[VICTIM, u]] += shot_damage(q, u)
        reload_weapon(f, q, u, fired, deviation)
    for u in range(columns):
        suffer(f, q, s, u)
    _push_apart(f, q, units)


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
    _push_apart(f, q, units)
    c[STEP] = 0
    c[COUNT] += 1
    c[EPISODE] += 1


@device
def _observe(f: Array, q: Array, s: Array, features: Array, obs: Array, state: Array) -> None:
    units = s[NUM_ALLIES] + s[NUM_ENEMIES]
    for u in range(units):
        describe(f, q, s, u, features)
        write_state(f, q, s, u, features, state)
    for u in range(s[NUM_AGENTS]):
        write_observation(f, q, s, u, features, obs[u])


@device
def _present(
    f: Array, q: Array, s: Array, features: Array, obs: Array, state: Array, avail: Array, alive: Array
) -> None:
    """Everything the next action is chosen from."""
    _observe(f, q, s, features, obs, state)
    for u in range(s[NUM_AGENTS]):
        write_available(f, q, s, u, avail[u])
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
    features: Array,
    next_: Any,
) -> None:
    """Games first..end-1: a new episode where asked for, then what the next action is chosen from."""
    f, q, c = games
    place, given_kinds = given
    obs, state, avail, alive = next_
    for e in range(first, end):
        if restart[e]:
            _begin_episode(f[e], q[e], c[e], s, seed, s[FIRST_ENV] + e, kinds, place[e], given_kinds[e])
        _present(f[e], q[e], s, features, obs[e], state[e], avail[e], alive[e])


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
    features: Array,
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
        _give_orders(fe, qe, s, seed, env, clock, numbers[e], vectors[e], draws[e])
        for u in range(units):
            begin_step(fe, qe, u)
        for tick in range(TICKS):
            _tick(fe, qe, s, seed, env, clock, tick, deviations[e])
        over_limit = ce[STEP] + (0 if s[LIMIT_IS_TERMINAL] else 1) >= s[MAX_STEPS]
        ce[STEP] += 1
        ce[COUNT] += 1
        allies_alive, enemies_alive = team_alive(qe, 0, allies), team_alive(qe, allies, units)
        decided = not (allies_alive and enemies_alive)
        reward[e] = team_reward(fe, qe, s, 0)
        enemy_reward[e] = team_reward(fe, qe, s, 1)
        terminated[e] = decided or (over_limit and s[LIMIT_IS_TERMINAL] != 0)
        truncated[e] = over_limit and not terminated[e]
        won[e] = allies_alive and not enemies_alive
        valid[e] = True
        if terminated[e] or truncated[e]:
            _observe(fe, qe, s, features, last_obs[e], last_state[e])
            if not s[KEEP_ENDED]:
                _begin_episode(fe, qe, ce, s, seed, env, kinds, draws[e, :0], kinds[:0])
        _present(fe, qe, s, features, obs[e], state[e], avail[e], alive[e])


def _digest() -> Scalar:
    """Of this folder's rules. numba looks only at a function's own file when it asks whether its cache is stale."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return int.from_bytes(hashlib.sha256(code).digest()[:6], "little")


def _compile(digest: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two entry points. ``digest`` is a closed-over constant, thereby part of the key of numba's cache."""

    @njit(parallel=True, nogil=True, cache=True)
    def present(games, s, seed, kinds, restart, given, scratch, next_):  # type: ignore[no-untyped-def]
        envs, shares = len(restart), len(scratch)
        for k in prange(shares):
            first, end = k * envs // shares, (k + 1) * envs // shares
            _present_share(first, end, games, s, seed, kinds, restart, given, scratch[k], next_)
        return digest

    @njit(parallel=True, nogil=True, cache=True)
    def step(games, s, seed, kinds, actions, given, scratch, next_, outcome, last):  # type: ignore[no-untyped-def]
        envs, shares = len(outcome[0]), len(scratch)
        for k in prange(shares):
            first, end = k * envs // shares, (k + 1) * envs // shares
            _step_share(first, end, games, s, seed, kinds, actions, given, scratch[k], next_, outcome, last)
        return digest

    return present, step


present, step = _compile(_digest())
