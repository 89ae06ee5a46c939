"""Games that crash, hang and age, as environments that do not: see `SmacEnv`."""

import contextlib
import time
from collections.abc import Callable
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
        self.spec = spec
        self._client, self._rules, self._seed = client, supervision, seed
        e = spec.num_envs
        self._workplace = Workplace(e)
        self._status = np.zeros(e, np.int8)
        self._report = np.zeros(e, np.int8)
        self._fresh = np.zeros(e, np.bool_)  # no step taken since the episode began
        self._since = np.zeros(e)
        self._steps = np.zeros(e, np.int64)  # since the game was started
        self._losses = np.zeros(e, np.int64)  # since the last whole episode
        self._launches = np.zeros(e, np.int64)
        self._max_reward = np.full(e, np.nan)
        self._queue: list[int] = []
        self._next_start = 0.0
        self._counts = {"crashes": 0, "hangs": 0, "dropped_episodes": 0, "planned_restarts": 0}
        self._awaited: StepArrays | None = None
        self._closed = False
        try:
            self._rebuild(range(e))
            # the first game tells which version plays, and whether games can be played here at all
            self._settle(lambda: bool((self._status == _READY).any()))
        except BaseException:
            self.close()
            raise
        spec.facts.update(client.facts)

    def metrics(self) -> dict[str, float]:
        """Counts since the beginning: ``smac/crashes``, ``hangs``, ``dropped_episodes``, ``planned_restarts``."""
        return {f"smac/{name}": float(count) for name, count in self._counts.items()}

    def reset(self, out: StepArrays) -> None:
        """Begin a new episode everywhere (an episode nobody has stepped in is new); waits for all games."""
        self._settle(lambda: bool((self._status == _READY).all()))
        rows = np.flatnonzero(~self._fresh)
        self._status[rows], self._since[rows] = _STARTING, time.monotonic()
        for row in rows:
            self._client.reset(int(row))
        self._settle(lambda: bool((self._status == _READY).all()))
        self._report[:] = _NOTHING
        for name in ("obs", "state", "avail_actions", "alive"):
            getattr(out, name)[:] = getattr(self._client.arrays, name)

    def step(self, action: Array, out: StepArrays) -> None:
        """Take one step in every environment whose game is there."""
        self.step_async(action, out)
        self.step_wait()

    def step_async(self, action: Array, out: StepArrays) -> None:
        """Begin a step whose results are in ``out`` after :meth:`step_wait`."""
        self.send(action, np.flatnonzero((self._status == _READY) & (self._report == _NOTHING)))
        self._awaited = out

    def step_wait(self) -> None:
        """Wait for the step begun by :meth:`step_async`."""
        if self._awaited is None:
            raise RuntimeError("step_wait without step_async")
        out, self._awaited = self._awaited, None
        if self._rules.sync:
            self._settle(lambda: bool((self._status == _READY).all()), int((self._status == _BUSY).sum()))
        else:
            self._settle(
                lambda: bool((self._status != _BUSY).all() and (self._status == _READY).any()),
                int((self._status == _BUSY).sum()),
            )
        self._write(np.arange(self.spec.num_envs), out)

    def send(self, action: Array, rows: NDArray[np.intp]) -> None:
        """Begin a step in ``rows`` alone, which must wait for an action: ``action`` is int32 [E, N]."""
        if action.shape != (self.spec.num_envs, self.spec.num_agents):
            raise UsageError(f"actions have shape {action.shape}, not {(self.spec.num_envs, self.spec.num_agents)}")
        self._check_actions(action, rows)
        if len(rows) == 0:
            return
        hold = self._steps + 1 >= self._rules.restart_after
        self._status[rows] = _BUSY
        self._since[rows] = time.monotonic()
        self._steps[rows] += 1
        self._fresh[rows] = False
        self._client.step(rows.tolist(), np.ascontiguousarray(action, np.int32), hold)

    def recv(self, out: StepArrays, minimum: int = 1) -> NDArray[np.intp]:
        """Wait until ``minimum`` of the environments can take an action after :meth:`send`; write and return them.

        A lost game counts once it is rebuilt: its row is void and shows a new episode.
        """
        busy = int((self._status == _BUSY).sum())
        self._settle(lambda: int(self._answered().sum()) >= minimum, min(minimum, busy) or 1)
        rows = np.flatnonzero(self._answered())
        self._write(rows, out)
        return rows

    def drop_episode(self, row: int) -> None:
        """Void the episode of environment ``row`` and replace its game, as if it had been lost in the last step.

        For tests: a run with a lost game must equal one whose episode was dropped here.
        """
        self._settle(lambda: bool((self._status == _READY).all()))
        self._counts["dropped_episodes"] += 1
        self._report[row] = _VOID
        self._client.stop(row)
        self._rebuild([row])
        self._settle(lambda: bool((self._status == _READY).all()))

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
        self._report[:] = _VOID
        self._settle(lambda: bool((self._status == _READY).all()))

    def close(self) -> None:
        """End all games; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._client.close()
            self._workplace.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _answered(self) -> NDArray[np.bool_]:
        answered: NDArray[np.bool_] = (self._report != _NOTHING) & (self._status == _READY)
        return answered

    def _check_actions(self, action: Array, rows: NDArray[np.intp]) -> None:
        """A step with an action that is not available would end the game's client, so it is not begun."""
        avail, chosen = self._client.arrays.avail_actions, action[rows]
        within = (chosen >= 0) & (chosen < self.spec.num_actions)
        fine = within & np.take_along_axis(avail[rows], np.where(within, chosen, 0)[..., None], 2)[..., 0]
        if not fine.all():
            env, agent = np.argwhere(~fine)[0]
            row, number = int(rows[env]), int(chosen[env, agent])
            raise UsageError(f"{self.spec.name}: agent {agent} of environment {row} cannot take action {number}")

    def _write(self, rows: NDArray[np.intp], out: StepArrays) -> None:
        """Hand out what the rows report."""
        arrays, report = self._client.arrays, self._report[rows]
        stepped, there = rows[report == _STEPPED], self._status[rows] == _READY
        whole = len(rows) == self.spec.num_envs and there.all() and len(stepped) == len(rows)
        for field in fields(StepArrays):
            if field.name != "valid":
                target, source = getattr(out, field.name), getattr(arrays, field.name)
                if whole:
                    target[...] = source
                else:
                    target[rows] = source[rows]
        out.valid[rows] = report == _STEPPED
        if not whole:
            self._void(rows[report != _STEPPED], out)
            self._blank(rows[~there], out)
        self._report[rows] = _NOTHING

    def _void(self, rows: NDArray[np.intp], out: StepArrays) -> None:
        out.reward[rows], out.terminated[rows], out.won[rows], out.truncated[rows] = 0, False, False, True
        out.last_obs[rows], out.last_state[rows] = 0, 0

    def _blank(self, rows: NDArray[np.intp], out: StepArrays) -> None:
        """Nothing to see where there is no game."""
        out.obs[rows], out.state[rows], out.alive[rows], out.avail_actions[rows] = 0, 0, False, False
        out.avail_actions[rows, :, 0] = True

    def _rebuild(self, rows: range | list[int]) -> None:
        for row in rows:
            self._status[row] = _ABSENT
            if row not in self._queue:
                self._queue.append(row)

    def _start_due(self) -> None:
        while self._queue and time.monotonic() >= self._next_start:
            row = self._queue.pop(0)
            self._next_start = time.monotonic() + self._rules.stagger
            number, known = int(self._launches[row]), float(self._max_reward[row])
            launch = Launch(
                row=row,
                seed=game_seed(self._seed, row, number),
                ports=self._workplace.ports(row),
                folder=self._workplace.fresh_folder(row),
                log=self._workplace.log(row),
                max_reward=None if np.isnan(known) else known,
            )
            self._launches[row] += 1
            self._steps[row] = 0
            self._status[row] = _STARTING
            self._since[row] = time.monotonic()
            self._client.start(launch)

    def _settle(self, done: Callable[[], bool], minimum: int = 1) -> None:
        """Start games, hear of them and replace lost ones until ``done``."""
        while not done():
            self._start_due()
            patience = _PATIENCE_S
            if self._queue:
                patience = min(patience, max(0.0, self._next_start - time.monotonic()))
            for happening in self._client.wait(minimum, patience):
                self._hear(happening)
                minimum = max(1, minimum - 1)
            self._check_deadlines()

    def _hear(self, happening: Happening) -> None:
        row = happening.row
        if happening.what == "failed":
            self._lose(row, happening.why, "crashes")
            return
        if happening.what == "ready":
            self._max_reward[row] = self._client.max_reward(row)
            self._status[row], self._fresh[row] = _READY, True
            return
        self._conclude(row)
        self._status[row] = _READY
        if happening.what == "ended":
            self._counts["planned_restarts"] += 1
            self._client.stop(row)
            self._rebuild([row])

    def _conclude(self, row: int) -> None:
        """The row's step has its results."""
        self._report[row] = _STEPPED
        ended = self._client.arrays.terminated[row] or self._client.arrays.truncated[row]
        self._fresh[row] = ended
        if ended:
            self._losses[row] = 0

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        for row in np.flatnonzero((self._status == _BUSY) & (now - self._since > self._rules.timeout)):
            self._lose(int(row), f"no answer within {self._rules.timeout:g} s", "hangs")
        for row in np.flatnonzero((self._status == _STARTING) & (now - self._since > self._rules.launch_timeout)):
            self._lose(int(row), f"not ready within {self._rules.launch_timeout:g} s", "hangs")

    def _lose(self, row: int, why: str, kind: str) -> None:
        """The row's game is gone: void its episode, rebuild it, or give up."""
        if self._status[row] == _BUSY:
            if self._client.fought(row):
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
