"""Games that crash, hang and age, as environments that do not: see `SmacEnv`."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from kpg_fast.envs.smac.client import Client, Happening, Launch
from kpg_fast.envs.smac.processes import Workplace, tail
from kpg_fast.envs.vec_env import Array, EnvSpec, StepArrays
from kpg_fast.errors import EnvironmentFailure, UsageError

_ABSENT, _STARTING, _READY, _BUSY = range(4)
# What the next call reports of an environment.
_NOTHING, _STEPPED, _VOID = range(3)
_PATIENCE_S = 0.25  # how long one wait may take, so that deadlines and Ctrl-C are seen to
_RESULTS = [field.name for field in fields(StepArrays) if field.name != "valid"]


@dataclass(frozen=True)
class Supervision:
    """How games are looked after; times in seconds.

    Attributes:
        sync: wait for a lost game to be rebuilt before going on, so that the same seed gives the same run; otherwise
            the others go on and the lost one reports void steps meanwhile.
        timeout: a game that takes longer to answer is lost.
        launch_timeout: the same for its start.
        stagger: between the starts of two games.
        max_failures: an environment that loses so many games without a whole episode between ends the run.
        restart_after: steps after which a game is replaced between two episodes; the game fails past 2^19 loops,
            which is 65,536 steps of 8 loops.
    """

    sync: bool = False
    timeout: float = 30.0
    launch_timeout: float = 120.0
    stagger: float = 0.5
    max_failures: int = 5
    restart_after: int = 60_000

    def check(self) -> None:
        """Raise ``UsageError`` for a value out of range."""
        for name in ("timeout", "launch_timeout"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} = {getattr(self, name)}: must be above 0")
        for name in ("max_failures", "restart_after"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.stagger < 0:
            raise UsageError(f"stagger = {self.stagger}: must not be negative")


def game_seed(seed: int, row: int, number: int) -> int:
    """The seed of the ``number``-th game of environment ``row``, 31 bits: another one for every game of a run."""
    return int(np.random.SeedSequence([seed, row, number]).generate_state(1)[0] >> 1)


class SmacEnv:
    """A batch of StarCraft II games; see `kpg_fast.envs.vec_env.VecEnv`.

    A step whose game was lost is void: ``valid`` is false, ``truncated`` true, and the whole episode up to it must be
    dropped. The environment is rebuilt with a fresh game (never reset a second time), keeps its reward scale, and
    reports void steps with zeros to look at and only action 0 to take until its next episode begins. With ``sync`` it
    is rebuilt at once.

    Besides `step`, :meth:`send` and :meth:`recv` let a learner go on with the environments that are done first.
    """

    def __init__(self, spec: EnvSpec, client: Client, supervision: Supervision, seed: int) -> None:
        supervision.check()
        self.spec, self.uneven = spec, not supervision.sync
        self._client, self._rules, self._seed = client, supervision, seed
        e = spec.num_envs
        self._workplace = Workplace(e)
        # lists: a batch is small, and counting in one is faster than an array's overhead
        self._status, self._report = [_ABSENT] * e, [_NOTHING] * e
        self._fresh = [False] * e  # no step taken since the episode began
        self._waited = [0.0] * e  # for the row's answer
        self._steps = np.zeros(e, np.int64)  # since the game was started
        self._losses = [0] * e  # since the last whole episode
        self._launches = np.zeros(e, np.int64)
        self._max_reward = np.full(e, np.nan)
        self._queue: list[int] = []
        self._next_start = 0.0
        self._places = np.arange(e * spec.num_agents).reshape(e, spec.num_agents) * spec.num_actions
        self._counts = {"crashes": 0, "hangs": 0, "dropped_episodes": 0, "planned_restarts": 0}
        self._awaited: StepArrays | None = None
        self._closed = False
        try:
            self._rebuild(range(e))
            # the first game tells which version plays, and whether games can be played here at all
            self._settle(lambda: _READY in self._status)
        except BaseException:
            self.close()
            raise
        spec.facts.update(client.facts)

    def metrics(self) -> dict[str, float]:
        """Counts since the beginning: ``smac/crashes``, ``hangs``, ``dropped_episodes``, ``planned_restarts``."""
        return {f"smac/{name}": float(count) for name, count in self._counts.items()}

    def reset(self, out: StepArrays) -> None:
        """Begin a new episode everywhere (an episode nobody has stepped in is new); waits for all games."""
        self._settle(self._all_ready)
        for row in range(self.spec.num_envs):
            if not self._fresh[row]:
                self._status[row], self._waited[row] = _STARTING, 0.0
                self._client.reset(row)
        self._settle(self._all_ready)
        self._report = [_NOTHING] * self.spec.num_envs
        for name in ("obs", "state", "avail_actions", "alive"):
            getattr(out, name)[:] = getattr(self._client.arrays, name)

    def step(self, action: Array, out: StepArrays) -> None:
        """Take one step in every environment whose game is there."""
        self.step_async(action, out)
        self.step_wait()

    def step_async(self, action: Array, out: StepArrays) -> None:
        """Begin a step whose results are in ``out`` after :meth:`step_wait`."""
        self.send(action, [row for row, status in enumerate(self._status) if status == _READY])
        self._awaited = out

    def step_wait(self) -> None:
        """Wait for the step begun by :meth:`step_async`."""
        if self._awaited is None:
            raise RuntimeError("step_wait without step_async")
        out, self._awaited = self._awaited, None
        self._settle(self._all_ready if self._rules.sync else self._none_busy, self._status.count(_BUSY))
        self._write(range(self.spec.num_envs), out)

    def send(self, action: Array, rows: Sequence[int] | NDArray[np.intp]) -> None:
        """Begin a step in ``rows`` alone, which must wait for an action: ``action`` is int32 [E, N].

        A row whose episode was voided since it was last heard of takes no step; it reports that first.
        """
        if action.shape != self._places.shape:
            raise UsageError(f"actions have shape {action.shape}, not {self._places.shape}")
        rows = [int(row) for row in rows if not self._report[row]]
        self._check_actions(action, rows)
        for row in rows:
            self._status[row], self._waited[row], self._fresh[row] = _BUSY, 0.0, False
        self._steps[rows] += 1
        if rows:
            hold = self._steps >= self._rules.restart_after
            self._client.step(rows, np.ascontiguousarray(action, np.int32), hold)

    def recv(self, out: StepArrays, minimum: int = 1) -> NDArray[np.intp]:
        """Wait until ``minimum`` of the environments can take an action after :meth:`send`; write and return them.

        A lost game counts once it is rebuilt: its row is void and shows a new episode.
        """
        busy = self._status.count(_BUSY)
        self._settle(lambda: len(self._answered()) >= minimum, min(minimum, busy) or 1)
        rows = self._answered()
        self._write(rows, out)
        return np.array(rows, np.intp)

    def drop_episode(self, row: int) -> None:
        """Void the episode of environment ``row`` and replace its game, as if it had been lost in the next step.

        For tests: a run with a lost game must equal one whose episode was dropped here.
        """
        self._settle(self._all_ready)
        self._counts["dropped_episodes"] += 1
        self._report[row] = _VOID
        self._client.stop(row)
        self._rebuild([row])
        self._settle(self._all_ready)

    def state_dict(self) -> dict[str, Array]:
        """What there is to keep: a game's state cannot be saved. A resumed run plays on with new episodes."""
        return {"launches": self._launches.copy(), "max_reward": self._max_reward.copy()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Go on with new games that repeat no episode; the first step after is void everywhere."""
        for name, own in self.state_dict().items():
            if name not in state or np.shape(state[name]) != own.shape:
                raise UsageError(f"{self.spec.name}: the saved {name} is not one of {self.spec.num_envs} environments")
        self._launches[:] = state["launches"]
        self._max_reward[:] = state["max_reward"]
        for row in range(self.spec.num_envs):
            self._client.stop(row)
        self._rebuild(range(self.spec.num_envs))
        self._report = [_VOID] * self.spec.num_envs
        self._settle(self._all_ready)

    def close(self) -> None:
        """End all games; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._client.close()
            self._workplace.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _all_ready(self) -> bool:
        return self._status.count(_READY) == len(self._status)

    def _none_busy(self) -> bool:
        return _BUSY not in self._status and _READY in self._status

    def _answered(self) -> list[int]:
        return [row for row, status in enumerate(self._status) if status == _READY and self._report[row]]

    def _check_actions(self, action: Array, rows: list[int]) -> None:
        """A step with an action that is not available would end the game's client, so it is not begun."""
        avail = self._client.arrays.avail_actions.reshape(-1)
        within = (action >= 0) & (action < self.spec.num_actions)
        fine = within & avail[self._places + np.where(within, action, 0)]
        if fine.all():
            return
        for row in rows:
            if not fine[row].all():
                agent = int(fine[row].argmin())
                what = f"agent {agent} of environment {row} cannot take action {int(action[row, agent])}"
                raise UsageError(f"{self.spec.name}: {what}")

    def _write(self, rows: Sequence[int], out: StepArrays) -> None:
        """Hand out what the rows report."""
        arrays = self._client.arrays
        stepped = [row for row in rows if self._report[row] == _STEPPED and self._status[row] == _READY]
        if len(stepped) == self.spec.num_envs:
            for name in _RESULTS:
                getattr(out, name)[...] = getattr(arrays, name)
            out.valid[...] = True
        else:
            chosen = list(rows)
            for name in _RESULTS:
                getattr(out, name)[chosen] = getattr(arrays, name)[chosen]
            out.valid[chosen] = [self._report[row] == _STEPPED for row in chosen]
            self._void([row for row in chosen if self._report[row] != _STEPPED], out)
            self._blank([row for row in chosen if self._status[row] != _READY], out)
        for row in rows:
            self._report[row] = _NOTHING

    def _void(self, rows: list[int], out: StepArrays) -> None:
        out.reward[rows], out.terminated[rows], out.won[rows], out.truncated[rows] = 0, False, False, True
        out.last_obs[rows], out.last_state[rows] = 0, 0

    def _blank(self, rows: list[int], out: StepArrays) -> None:
        """Nothing to see where there is no game."""
        out.obs[rows], out.state[rows], out.alive[rows], out.avail_actions[rows] = 0, 0, False, False
        out.avail_actions[rows, :, 0] = True

    def _rebuild(self, rows: Sequence[int]) -> None:
        for row in rows:
            self._status[row] = _ABSENT
            if row not in self._queue:
                self._queue.append(row)

    def _start_due(self) -> None:
        while self._queue and time.monotonic() >= self._next_start:
            row = self._queue.pop(0)
            self._next_start = time.monotonic() + self._rules.stagger
            known = float(self._max_reward[row])
            launch = Launch(
                row=row,
                seed=game_seed(self._seed, row, int(self._launches[row])),
                ports=self._workplace.ports(row),
                folder=self._workplace.fresh_folder(row),
                log=self._workplace.log(row),
                max_reward=None if np.isnan(known) else known,
            )
            self._launches[row] += 1
            self._steps[row] = 0
            self._status[row], self._waited[row] = _STARTING, 0.0
            self._client.start(launch)

    def _settle(self, done: Callable[[], bool], minimum: int = 1) -> None:
        """Start games, hear of them and replace lost ones until ``done``; wakes for ``minimum`` steps."""
        while not done():
            self._start_due()
            patience = _PATIENCE_S
            if self._queue:
                patience = min(patience, max(0.0, self._next_start - time.monotonic()))
            begun = time.monotonic()
            happened = self._client.wait(max(1, minimum), patience)
            waited = time.monotonic() - begun
            minimum -= len(happened)
            for happening in happened:
                self._hear(happening)
            # a process that was stopped meanwhile, or was away learning, has not waited
            self._check_deadlines(min(waited, 2 * _PATIENCE_S))

    def _hear(self, happening: Happening) -> None:
        row = happening.row
        if happening.what == "failed":
            self._lose(row, happening.why, "crashes")
            return
        self._status[row] = _READY
        if happening.what == "ready":
            self._max_reward[row] = self._client.max_reward(row)
            self._fresh[row] = True
            return
        self._conclude(row)
        if happening.what == "ended":
            self._counts["planned_restarts"] += 1
            self._client.stop(row)
            self._rebuild([row])

    def _conclude(self, row: int) -> None:
        """The row's step has its results."""
        self._report[row] = _STEPPED
        if self._is_over(row):
            self._fresh[row], self._losses[row] = True, 0

    def _is_over(self, row: int) -> bool:
        return bool(self._client.arrays.terminated[row] or self._client.arrays.truncated[row])

    def _check_deadlines(self, waited: float) -> None:
        """Lose the games that do not answer; ``waited`` seconds more were spent waiting."""
        limits = {_BUSY: (self._rules.timeout, "no answer"), _STARTING: (self._rules.launch_timeout, "not ready")}
        for row, status in enumerate(self._status):
            if status in limits:
                self._waited[row] += waited
                limit, what = limits[status]
                if self._waited[row] > limit:
                    self._lose(row, f"{what} within {limit:g} s", "hangs")

    def _lose(self, row: int, why: str, kind: str) -> None:
        """The row's game is gone: void its episode, rebuild it, or give up."""
        if self._status[row] == _BUSY:
            # results of a step that ends no episode are void, too: no game goes on from them
            if self._client.fought(row) and self._is_over(row):
                self._conclude(row)
            else:
                self._report[row] = _VOID
                self._counts["dropped_episodes"] += 1
        self._counts[kind] += 1
        self._losses[row] += 1
        self._client.stop(row)
        if self._losses[row] >= self._rules.max_failures:
            log = tail(self._workplace.log(row))
            self.close()
            raise EnvironmentFailure(
                f"{self.spec.name}: environment {row} lost {self._losses[row]} games without a whole episode between;"
                f" the last: {why}. The game's log:\n{log or '(empty)'}"
            )
        self._rebuild([row])
