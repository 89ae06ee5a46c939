"""T steps of E environments with the current policy, kept in preallocated memory.

Axes are [T, E, N, ...]; arrays with one more step in front end with what the next rollout begins with. Where S seeds
are trained as one batch, their environments lie side by side, seed by seed, and the learner sees [S, T, E / S, N, ...]
(:meth:`Rollout.by_seed`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import count
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from kpg_fast.envs import EnvSpec, StepArrays, UnevenVecEnv, VecEnv
from kpg_fast.place import Fetched, Staged, pinned
from kpg_fast.seeds import by_seed, take
from kpg_fast.stopwatch import Stopwatch

Record = TypeVar("Record")


class Policy(Protocol):
    """Chooses actions for all agents of all environments and remembers what recurrence needs."""

    def act(
        self, obs: Tensor, avail_actions: Tensor, reset: Tensor, counter: Any, greedy: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Actions, [E, N] int32 or [E, N, A] real, and their log-probabilities [E, N] from obs [E, N, O] and reset [E]
        bool.
        """

    def for_env(self, action: Tensor) -> Tensor:
        """What the environment takes for these actions."""


class Sampler(Policy, Protocol):
    """A policy that can also act for some of its environments, each at a step of its own."""

    def act_for(
        self, envs: Tensor, obs: Tensor, avail_actions: Tensor, reset: Tensor, counter: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `Policy.act` for the environments ``envs`` int64 [e], the arrays and ``counter`` [e] being theirs."""


# what an episode's return, length and end are made of
_OUTCOME = ("reward", "terminated", "truncated", "won", "valid")

# what the next action is chosen from
_SEEN = ("obs", "state", "avail_actions", "alive", "reset")


@dataclass
class Rollout:
    """The memory of one rollout; every field says its shape."""

    obs: Tensor  # [T+1, E, N, O]
    state: Tensor  # [T+1, E, S]
    avail_actions: Tensor  # [T+1, E, N, A] bool
    alive: Tensor  # [T+1, E, N] bool
    reset: Tensor  # [T+1, E] bool: an episode begins here
    action: Tensor  # [T, E, N] int32, or [T, E, N, A] as the policy chose them
    log_prob: Tensor  # [T, E, N]
    reward: Tensor  # [T, E]
    terminated: Tensor  # [T, E] bool
    truncated: Tensor  # [T, E] bool
    won: Tensor  # [T, E] bool
    valid: Tensor  # [T, E] bool
    last_state: Tensor  # [T, E, S], where an episode was truncated
    steps: list[StepArrays] = field(default_factory=list)
    """Where step t of the environment writes: views of the above."""

    _host: dict[str, Tensor] = field(default_factory=dict)
    outcomes: list[StepArrays] = field(default_factory=list)
    """What step t brought, in the host's memory once :meth:`fetch_outcomes` is done: of the same steps on a CPU."""

    staged: Staged | None = None
    """How steps of environments on the host get here."""

    @classmethod
    def allocate(
        cls, spec: EnvSpec, num_steps: int, device: torch.device | None = None, hosted: bool = False
    ) -> "Rollout":
        """Allocate for ``num_steps`` = T steps of ``spec``, on the CPU or another device.

        ``hosted``: the environments write to the host's memory, from where every step is sent.
        """
        t, e, n = num_steps, spec.num_envs, spec.num_agents
        zeros = partial(torch.zeros, device=device)
        ones = partial(torch.ones, dtype=torch.bool, device=device)
        rollout = cls(
            obs=zeros(t + 1, e, n, spec.obs_size),
            state=zeros(t + 1, e, spec.state_size),
            avail_actions=ones(t + 1, e, n, spec.num_actions),
            alive=ones(t + 1, e, n),
            reset=ones(t + 1, e),
            action=zeros(t, e, n, spec.num_actions) if spec.continuous else zeros(t, e, n, dtype=torch.int32),
            log_prob=zeros(t, e, n),
            reward=zeros(t, e),
            terminated=zeros(t, e, dtype=torch.bool),
            truncated=zeros(t, e, dtype=torch.bool),
            won=zeros(t, e, dtype=torch.bool),
            valid=ones(t, e),
            last_state=zeros(t, e, spec.state_size),
            staged=Staged(torch.device(device or "cpu")) if hosted else None,
        )
        last_obs = zeros(e, n, spec.obs_size)
        rollout.steps = [rollout._step_arrays(index, last_obs) for index in range(t)]
        rollout.outcomes = rollout.steps
        if rollout.obs.device.type != "cpu":
            rollout._host = {name: pinned((t, e), getattr(rollout, name).dtype) for name in _OUTCOME}
            nothing = StepArrays.empty(replace(spec, num_envs=0))
            rollout.outcomes = [
                replace(nothing, **{name: memory[index].numpy() for name, memory in rollout._host.items()})
                for index in range(t)
            ]
        return rollout

    def _step_arrays(self, t: int, last_obs: Tensor) -> StepArrays:
        return StepArrays(
            obs=in_place(self.obs[t + 1]),
            state=in_place(self.state[t + 1]),
            avail_actions=in_place(self.avail_actions[t + 1]),
            alive=in_place(self.alive[t + 1]),
            reward=in_place(self.reward[t]),
            terminated=in_place(self.terminated[t]),
            truncated=in_place(self.truncated[t]),
            won=in_place(self.won[t]),
            valid=in_place(self.valid[t]),
            last_obs=in_place(last_obs),
            last_state=in_place(self.last_state[t]),
        )

    def begin(self, env: VecEnv) -> None:
        """Reset the environments so that the first rollout can follow."""
        out = self.steps[-1] if self.staged is None else StepArrays.empty(env.spec)
        env.reset(out)
        if self.staged is not None:
            for name in _SEEN[:-1]:
                getattr(self, name)[-1].copy_(torch.from_numpy(getattr(out, name)))
        self.reset[-1].fill_(True)

    def fetch_outcomes(self, fetched: Fetched) -> None:
        """Queue copies of what ``outcomes`` shows."""
        fetched.fetch([(getattr(self, name), memory) for name, memory in self._host.items()])

    def collect(
        self, env: VecEnv, policy: Sampler, counter: int | Tensor, watch: Stopwatch | None = None, void: bool = True
    ) -> None:
        """Fill the memory.

        Args:
            env: where the last rollout has left it.
            policy: whose actions are taken.
            counter: steps taken since the run began; with the seed it determines every random number. A tensor on the
                device is read when the work is done.
            watch: takes the seconds spent in the environment and in the policy.
            void: whether steps may have to be voided, which waits for them.
        """
        for name in _SEEN:
            memory = getattr(self, name)
            memory[0].copy_(memory[-1])
        watch = watch or Stopwatch()
        watch.start()
        if isinstance(env, UnevenVecEnv) and (env.uneven or self.staged):
            self._collect_ready(env, policy, counter, watch)
        else:
            self._collect_together(env, policy, counter, watch)
        if void:
            self._drop_lost()

    def _collect_together(self, env: VecEnv, policy: Sampler, counter: int | Tensor, watch: Stopwatch) -> None:
        for t, out in enumerate(self.steps):
            action, log_prob = policy.act(self.obs[t], self.avail_actions[t], self.reset[t], counter + t)
            self.action[t], self.log_prob[t] = action, log_prob
            watch.lap("policy")
            env.step(in_place(policy.for_env(self.action[t])), out)
            torch.logical_or(self.terminated[t], self.truncated[t], out=self.reset[t + 1])
            watch.lap("env")

    def _collect_ready(self, env: UnevenVecEnv, policy: Sampler, counter: int | Tensor, watch: Stopwatch) -> None:
        """Every environment goes on as soon as it can; the same numbers come out, since each has its own."""
        (steps, envs), device = self.reward.shape, self.reward.device
        taken, out = np.zeros(envs, np.int64), StepArrays.empty(env.spec)
        ready, running = np.arange(envs), 0
        while True:
            goes_on = ready[taken[ready] < steps]
            if len(goes_on):
                going, at = (torch.from_numpy(x).to(device) for x in (goes_on, taken[goes_on]))
                obs, avail, reset = (memory[at, going] for memory in (self.obs, self.avail_actions, self.reset))
                action, log_prob = policy.act_for(going, obs, avail, reset, counter + at)
                self.action[at, going], self.log_prob[at, going] = action, log_prob.to(self.log_prob.dtype)
                out_action = torch.zeros_like(self.action[0])
                out_action[going] = self.action[at, going]
            watch.lap("policy")
            if len(goes_on):
                env.send(policy.for_env(out_action).cpu().numpy(), goes_on)
                running += len(goes_on)
            if not running:
                return
            ready = env.recv(out, enough(running, envs))
            running -= len(ready)
            self._keep(out, taken[ready], ready)
            taken[ready] += 1
            watch.lap("env")

    def _keep(self, out: StepArrays, taken: np.ndarray, ready: np.ndarray) -> None:
        """Write what the environments ``ready`` reported to their step ``taken``."""
        device, names = self.reward.device, (*_SEEN[:-1], *_OUTCOME, "last_state")
        at, rows = (torch.from_numpy(x).to(device) for x in (taken, ready))
        arrays = {name: getattr(out, name) for name in names}
        if self.staged is None:
            reported = {name: torch.from_numpy(array)[ready] for name, array in arrays.items()}
        else:
            reported = self.staged.send(arrays, ready)
        for name, value in reported.items():
            getattr(self, name)[at + 1 if name in _SEEN else at, rows] = value
        self.reset[at + 1, rows] = self.terminated[at, rows] | self.truncated[at, rows]

    def _drop_lost(self) -> None:
        """Void every step of an episode that turned out to be void: what a lost game has played is no data."""
        if self.valid.all():
            return
        lost, over = torch.zeros_like(self.valid[0]), self.terminated | self.truncated
        for t in reversed(range(len(over))):
            lost = ~self.valid[t] | (lost & ~over[t])
            self.valid[t] &= ~lost

    def tensors(self, envs: slice) -> dict[str, Tensor]:
        """What the next rollout of some environments begins with."""
        return {f"rollout/{name}": getattr(self, name)[-1, envs] for name in _SEEN}

    def by_seed(self, seeds: int) -> "Rollout":
        """The memory as the learner sees it: views [S, T, E / S, ...]."""
        return map_tensors(self, lambda x: by_seed(x, seeds))

    def select(self, samples: Tensor, dtype: torch.dtype) -> "Rollout":
        """The given samples [S, B] of a rollout by seed alone, copied, with real numbers in ``dtype``."""

        def chosen(x: Tensor) -> Tensor:
            part = take(x, samples)
            return part.to(dtype) if part.is_floating_point() else part

        return map_tensors(self, chosen)


def map_tensors(record: Record, f: Callable[[Tensor], Tensor]) -> Record:
    """The same dataclass with ``f`` of its tensors; of a rollout without where steps are written and read."""
    values = {g.name: getattr(record, g.name) for g in fields(record)}  # type: ignore[arg-type]
    changed: dict[str, Any] = {name: f(value) for name, value in values.items() if isinstance(value, Tensor)}
    unused: dict[str, Any] = {name: type(value)() for name, value in values.items() if isinstance(value, list | dict)}
    return replace(record, **changed | unused)  # type: ignore[type-var]


def in_place(tensor: Tensor) -> Any:
    """The same memory as environments take it: an array on the CPU, a tensor on a card."""
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def enough(running: int, envs: int) -> int:
    """For how many of ``running`` environments to wait before the policy acts: fewer would make its calls dear."""
    return min(running, -(-envs // 4))


def stretches(x: Tensor, length: int) -> Tensor:
    """[S, T, E, ...] -> [S, length, T / length * E, ...]; with T + 1 steps it gives stretches of length + 1. Number
    c * E + e is the environment e's c-th.
    """
    count, more = divmod(x.shape[1], length)
    steps = torch.arange(length + more, device=x.device)[:, None]
    return x[:, steps + torch.arange(0, count * length, length, device=x.device)].flatten(2, 3)


@dataclass
class EpisodeTracker:
    """Return, length and outcome of every episode, across rollouts. Episodes with an invalid step do not count."""

    returns: np.ndarray  # [E] float64: of the running episodes
    lengths: np.ndarray  # [E] int64
    broken: np.ndarray  # [E] bool

    @classmethod
    def allocate(cls, num_envs: int) -> "EpisodeTracker":
        """Begin at the start of an episode everywhere."""
        return cls(np.zeros(num_envs), np.zeros(num_envs, np.int64), np.zeros(num_envs, np.bool_))

    def follow(self, steps: Iterable[StepArrays]) -> dict[str, float]:
        """Add a rollout's steps; returns the means over the episodes that ended in it (none: only ``episodes``)."""
        return summarise([self.step(out) for out in steps])

    def step(
        self, out: StepArrays, counted: np.ndarray | bool = True, envs: np.ndarray | slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Add one step of ``envs``; returns return, length and won of the ``counted`` episodes that ended soundly in
        it.
        """
        self.returns[envs] += out.reward[envs]
        self.lengths[envs] += 1
        self.broken[envs] |= ~out.valid[envs]
        over = np.zeros_like(self.broken)
        over[envs] = (out.terminated | out.truncated)[envs]
        sound = over & ~self.broken & counted
        result = self.returns[sound], self.lengths[sound], out.won[sound]
        for total in (self.returns, self.lengths, self.broken):
            total[over] = 0
        return result

    def tensors(self) -> dict[str, Tensor]:
        """The running episodes, for an exact resume."""
        return {f"episodes/{f.name}": torch.from_numpy(getattr(self, f.name)) for f in fields(self)}


def play(env: VecEnv, policy: Policy, per_env: int, watch: Callable[[VecEnv], None] | None = None) -> dict[str, float]:
    """Play ``per_env`` greedy episodes on every environment, so that short ones do not count for more; their means.

    Args:
        env: fresh environments.
        policy: without a past.
        per_env: sound episodes wanted of each environment.
        watch: called with the environments before every step, and at the end.
    """
    out, tracker = StepArrays.empty(env.spec), EpisodeTracker.allocate(env.spec.num_envs)
    env.reset(out)
    left = np.full(env.spec.num_envs, per_env)
    reset = torch.ones(env.spec.num_envs, dtype=torch.bool)
    ended = []
    for counter in count():
        if watch:
            watch(env)
        action, _ = policy.act(torch.from_numpy(out.obs), torch.from_numpy(out.avail_actions), reset, counter, True)
        env.step(policy.for_env(action).numpy(), out)
        over = out.terminated | out.truncated
        sound = over & out.valid & ~tracker.broken
        ended.append(tracker.step(out, counted=left > 0))
        left -= sound
        if (left <= 0).all():
            if watch:
                watch(env)
            return summarise(ended)
        reset = torch.from_numpy(over)
    raise AssertionError("unreachable")


def summarise(ended: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Means over episodes given as (return, length, won) arrays."""
    returns, lengths, won = (np.concatenate(parts) for parts in zip(*ended, strict=True))
    if not len(returns):
        return {"episodes": 0.0}
    return {
        "episodes": float(len(returns)),
        "return_mean": float(returns.mean()),
        "length_mean": float(lengths.mean()),
        "win_rate": float(won.mean()),
    }
