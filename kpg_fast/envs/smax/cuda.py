"""The CUDA driver: a block of threads plays a game, a thread a unit, by the rules of rules.py with barriers in between.

It takes what the CPU driver takes, on the device (arrays with ``__cuda_array_interface__``, torch's among them), and
draws the same random numbers, so both play the same games. A game's state lives in shared memory during a step. Needs
numba-cuda (the extra ``cuda``), whose simulator runs it without a card.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numba.cuda
import numpy as np
from numba import float32, int32
from numba.extending import overload

from kpg_fast.envs.smax.compiled import Scalar, device, multiply_add
from kpg_fast.envs.smax.cpu import cooldown_deviation
from kpg_fast.envs.smax.lanes import copy_features, select
from kpg_fast.envs.smax.layout import (
    ALIVE,
    CONTINUOUS,
    COUNT,
    DAMAGE,
    EPISODE,
    FEATURE_COLUMNS,
    FIRST_ENV,
    FLOAT_ROWS,
    INT_ROWS,
    KEEP_ENDED,
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
    UNIT_FEATURES,
    VICTIM,
    VIEW_ROWS,
    X,
    Y,
)
from kpg_fast.envs.smax.observe import describe, look, write_available, write_observation, write_state
from kpg_fast.envs.smax.orders import order_continuous, order_discrete, order_script, spot
from kpg_fast.envs.smax.rules import (
    advance,
    begin_step,
    in_reach,
    overlap,
    ready,
    reload_weapon,
    shot_damage,
    team_alive,
    team_reward,
)
from kpg_fast.envs.smax.spawn import settle, spawn
from kpg_fast.envs.vec_env import Array

cuda: Any = numba.cuda  # or its simulator, whose names are the same
_ZERO, _HALF = np.float32(0.0), np.float32(0.5)
_WARP = 32

# A block plays a game; numba-cuda would warn at every launch of fewer than 128, but small runs are meant to be small.
numba.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # type: ignore[attr-defined]

# numba-cuda 0.30 asks for a name that NumPy 2.5 took away; without it nothing compiles.
vars(np).setdefault("row_stack", np.vstack)


# The rules' helpers that a CPU takes by vectors, for a single unit.


@overload(multiply_add, target="cuda")
def _multiply_add_on_cuda(a, b, c):  # type: ignore[no-untyped-def]
    return lambda a, b, c: cuda.fma(a, b, c)


@overload(select, target="cuda")
def _select_on_cuda(condition, then, otherwise):  # type: ignore[no-untyped-def]
    return lambda condition, then, otherwise: then if condition else otherwise


@overload(copy_features, target="cuda")
def _copy_features_on_cuda(features, row, target, at):  # type: ignore[no-untyped-def]
    def copy(features, row, target, at):  # type: ignore[no-untyped-def]
        for c in range(UNIT_FEATURES):
            target[at + c] = features[row, c]

    return copy


@device
def _push_apart(f: Array, q: Array, units: Scalar, u: Scalar) -> None:
    """The collision push of unit u, from NEXT to the position; the others' shares are summed in ascending order."""
    if not q[ALIVE, u]:
        return
    x, y, radius = f[NEXT_X, u], f[NEXT_Y, u], f[RADIUS, u]
    push_x, push_y = _ZERO, _ZERO
    for v in range(units):
        dx, dy = x - f[NEXT_X, v], y - f[NEXT_Y, v]
        share = overlap(dx, dy, radius + f[RADIUS, v])
        push_x, push_y = multiply_add(dx, share, push_x), multiply_add(dy, share, push_y)
    f[X, u] = x + push_x * _HALF
    f[Y, u] = y + push_y * _HALF


@cuda.jit(device=True)
def _begin_episode(f, q, s, u, kinds, place, given_kinds, seed, env, clock):  # type: ignore[no-untyped-def]
    """As in cpu.py, but for the counters."""
    units = s[NUM_ALLIES] + s[NUM_ENEMIES]
    if u < units:
        if place.size:
            settle(f, q, u, given_kinds[u], place[u, 0], place[u, 1])
        else:
            spawn(f, q, s, u, kinds, seed, env, clock)
    cuda.syncthreads()
    if u < units:
        _push_apart(f, q, units, u)
    cuda.syncthreads()


@cuda.jit(device=True)
def _tick(f, q, s, u, seed, env, clock, tick, given):  # type: ignore[no-untyped-def]
    """A sixteenth of a second for all units."""
    units = s[NUM_ALLIES] + s[NUM_ENEMIES]
    if u < units and ready(f, q, u) and in_reach(f, q, u):
        reload_weapon(f, q, u, cooldown_deviation(seed, env, clock, tick, u, given))
        if q[VICTIM, u] >= 0:
            cuda.atomic.add(f, (DAMAGE, q[VICTIM, u]), shot_damage(q, u))
    cuda.syncthreads()
    if u < units:
        advance(f, q, s, u)
    cuda.syncthreads()
    if u < units:
        _push_apart(f, q, units, u)
    cuda.syncthreads()


@cuda.jit(device=True)
def _load(f_all, q_all, f, q, features, u):  # type: ignore[no-untyped-def]
    """A game's state into shared memory."""
    if u < f.shape[1]:
        for row in range(FLOAT_ROWS):
            f[row, u] = f_all[row, u]
        for row in range(INT_ROWS):
            q[row, u] = q_all[row, u]
    if u < FEATURE_COLUMNS:
        features[features.shape[0] - 1, u] = _ZERO
    cuda.syncthreads()


@cuda.jit(device=True)
def _store(f_all, q_all, f, q, u):  # type: ignore[no-untyped-def]
    """The state back to where it came from."""
    if u < f.shape[1]:
        for row in range(FLOAT_ROWS):
            f_all[row, u] = f[row, u]
        for row in range(INT_ROWS):
            q_all[row, u] = q[row, u]


@cuda.jit(device=True)
def _random_stream(seeds, s, e):  # type: ignore[no-untyped-def]
    """Seed and number of environment e: the seeds' environments lie side by side, and each counts its own."""
    each = cuda.gridDim.x // seeds.size
    return seeds[e // each], s[FIRST_ENV] + e % each


@cache
def kernels(columns: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two entry points for games of ``columns`` padded units."""
    float_shape, int_shape, feature_shape = (FLOAT_ROWS, columns), (INT_ROWS, columns), (columns + 1, FEATURE_COLUMNS)
    view_shape = (VIEW_ROWS, columns)

    @cuda.jit(device=True)
    def give_orders(f, q, s, u, number, vector, draws):  # type: ignore[no-untyped-def]
        spotted = cuda.local.array(columns, float32)
        units = s[NUM_ALLIES] + s[NUM_ENEMIES]
        if u < units:
            if u >= s[NUM_AGENTS]:
                for v in range(units):
                    spot(f, q, u, v, spotted)
                order_script(f, q, s, u, spotted, draws)
            elif s[CONTINUOUS]:
                order_continuous(f, q, s, u, vector[u], draws)
            else:
                order_discrete(f, q, s, u, number[u])
            begin_step(f, u)
        cuda.syncthreads()

    @cuda.jit(device=True)
    def show(f, q, s, u, features, obs, state, avail, alive):  # type: ignore[no-untyped-def]
        """Everything the next action is chosen from."""
        view = cuda.local.array(view_shape, float32)
        units = s[NUM_ALLIES] + s[NUM_ENEMIES]
        if u < units:
            describe(f, q, s, u, features)
            write_state(f, q, s, u, features, state)
        cuda.syncthreads()
        if u < s[NUM_AGENTS]:
            for v in range(units):
                look(f, q, u, v, view)
            write_observation(f, q, s, u, features, view, obs[u])
            write_available(f, q, s, u, view, avail[u])
            alive[u] = q[ALIVE, u] != 0
        cuda.syncthreads()

    @cuda.jit
    def present_kernel(f_all, q_all, c, s, seeds, kinds, restart, place, given_kinds, obs, state, avail, alive):  # type: ignore[no-untyped-def]
        f = cuda.shared.array(float_shape, float32)
        q = cuda.shared.array(int_shape, int32)  # a line of its own: by lines the simulator tells arrays apart
        features = cuda.shared.array(feature_shape, float32)
        e, u = cuda.blockIdx.x, cuda.threadIdx.x
        seed, env = _random_stream(seeds, s, e)
        _load(f_all[e], q_all[e], f, q, features, u)
        if restart[e]:
            _begin_episode(f, q, s, u, kinds, place[e], given_kinds[e], seed, env, c[e, COUNT])
            if u == 0:
                c[e, STEP] = 0
                c[e, COUNT] += 1
                c[e, EPISODE] += 1
        show(f, q, s, u, features, obs[e], state[e], avail[e], alive[e])
        _store(f_all[e], q_all[e], f, q, u)

    @cuda.jit
    def step_kernel(  # type: ignore[no-untyped-def]
        f_all, q_all, c, s, seeds, kinds, numbers, vectors, draws, deviations, obs, state, avail, alive,
        reward, enemy_reward, terminated, truncated, won, valid, last_obs, last_state,
    ):  # fmt: skip
        f = cuda.shared.array(float_shape, float32)
        q = cuda.shared.array(int_shape, int32)  # a line of its own: by lines the simulator tells arrays apart
        features = cuda.shared.array(feature_shape, float32)
        e, u = cuda.blockIdx.x, cuda.threadIdx.x
        seed, env = _random_stream(seeds, s, e)
        clock, step_before, episode = c[e, COUNT], c[e, STEP], c[e, EPISODE]
        allies, units = s[NUM_ALLIES], s[NUM_ALLIES] + s[NUM_ENEMIES]
        _load(f_all[e], q_all[e], f, q, features, u)
        give_orders(f, q, s, u, numbers[e], vectors[e], (seed, env, clock, draws[e]))
        for tick in range(TICKS):
            _tick(f, q, s, u, seed, env, clock, tick, deviations[e])
        over_limit = step_before + (0 if s[LIMIT_IS_TERMINAL] else 1) >= s[MAX_STEPS]
        allies_alive, enemies_alive = team_alive(q, 0, allies), team_alive(q, allies, units)
        ends = not (allies_alive and enemies_alive) or (over_limit and s[LIMIT_IS_TERMINAL] != 0)
        begins = (ends or over_limit) and not s[KEEP_ENDED]
        if u == 0:
            reward[e] = team_reward(f, q, s, 0, not allies_alive, not enemies_alive)
            if s[SELF_PLAY]:
                enemy_reward[e] = team_reward(f, q, s, 1, not enemies_alive, not allies_alive)
            terminated[e], truncated[e] = ends, over_limit and not ends
            won[e], valid[e] = allies_alive and not enemies_alive, True
            c[e, STEP] = 0 if begins else step_before + 1
            c[e, COUNT] = clock + (2 if begins else 1)
            c[e, EPISODE] = episode + (1 if begins else 0)
        cuda.syncthreads()
        if ends or over_limit:
            show(f, q, s, u, features, last_obs[e], last_state[e], avail[e], alive[e])
            if begins:
                _begin_episode(f, q, s, u, kinds, draws[e, :0], kinds[:0], seed, env, clock + 1)
        show(f, q, s, u, features, obs[e], state[e], avail[e], alive[e])
        _store(f_all[e], q_all[e], f, q, u)

    return present_kernel, step_kernel


def _grid(f: Array, stream: int) -> tuple[Any, ...]:
    """Blocks, and threads in each: whole warps with a thread for every unit; and the stream, unless it is numba's."""
    grid = (f.shape[0], -(-f.shape[2] // _WARP) * _WARP)
    return (*grid, cuda.external_stream(stream)) if stream else grid


def _seeds(seed: Any) -> Any:
    """An array of seeds as it is, a single one as an array."""
    return seed if getattr(seed, "ndim", 0) else np.array([seed], np.uint64)


def present(
    games: Any,
    s: Array,
    seed: Scalar,
    kinds: Array,
    restart: Array,
    given: Any,
    scratch: Any,
    next_: Any,
    stream: int = 0,
) -> None:
    """See cpu.py; ``scratch`` is not used. ``seed`` may be an array of S seeds, whose environments lie side by side.
    ``stream`` is a CUDA stream's address, e.g. that which torch captures.
    """
    kernel, _ = kernels(games[0].shape[2])
    kernel[_grid(games[0], stream)](*games, s, _seeds(seed), kinds, restart, *given, *next_)  # type: ignore[index]


def step(
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
    stream: int = 0,
) -> None:
    """See cpu.py and :func:`present`."""
    _, kernel = kernels(games[0].shape[2])
    kernel[_grid(games[0], stream)](*games, s, _seeds(seed), kinds, *actions, *given, *next_, *outcome, *last)  # type: ignore[index]
