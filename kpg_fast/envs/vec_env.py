"""One interface for every environment: a batch of games stepped together into the caller's arrays.

Sizes: E num_envs, N num_agents, O obs_size, S state_size, A num_actions (discrete) or action_size (continuous).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class EnvSpec:
    """The shapes and facts of an environment that a learner needs.

    ``action_low``/``action_high`` are float32 [N, A] for continuous actions and ``None`` for discrete ones; padded
    actuators of smaller agents have low = high = 0. ``facts`` goes into every result (flavour, versions, map).
    """

    name: str
    num_envs: int
    num_agents: int
    obs_size: int
    state_size: int
    num_actions: int
    max_episode_steps: int
    action_low: Array | None = None
    action_high: Array | None = None
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def continuous(self) -> bool:
        """Whether actions are real vectors in ``[action_low, action_high]`` and not indices."""
        return self.action_low is not None


@dataclass
class StepArrays:
    """Where an environment writes. The caller owns the memory (slices of a rollout buffer, pinned memory, ...).

    What the next action is chosen from, already of the new episode where one ended:
        obs [E, N, O] float32, state [E, S] float32, avail_actions [E, N, A] bool (all true if continuous),
        alive [E, N] bool.
    What the last action brought:
        reward [E] float32 (shared by the team), terminated [E] bool, truncated [E] bool, won [E] bool,
        valid [E] bool (false: this step must not become data).
    Where an episode ended (terminated or truncated), and only there, the observation that would have come next:
        last_obs [E, N, O] float32, last_state [E, S] float32.
    """

    obs: Array
    state: Array
    avail_actions: Array
    alive: Array
    reward: Array
    terminated: Array
    truncated: Array
    won: Array
    valid: Array
    last_obs: Array
    last_state: Array

    @classmethod
    def empty(cls, spec: EnvSpec) -> "StepArrays":
        """Allocate zeroed arrays of the right shapes for one step of ``spec``."""
        e, n = spec.num_envs, spec.num_agents
        flag = [np.zeros(e, np.bool_) for _ in range(4)]
        return cls(
            obs=np.zeros((e, n, spec.obs_size), np.float32),
            state=np.zeros((e, spec.state_size), np.float32),
            avail_actions=np.ones((e, n, spec.num_actions), np.bool_),
            alive=np.ones((e, n), np.bool_),
            reward=np.zeros(e, np.float32),
            terminated=flag[0],
            truncated=flag[1],
            won=flag[2],
            valid=flag[3],
            last_obs=np.zeros((e, n, spec.obs_size), np.float32),
            last_state=np.zeros((e, spec.state_size), np.float32),
        )

    def part(self, envs: slice) -> "StepArrays":
        """The same memory for some neighbouring environments alone."""
        return StepArrays(**{f.name: getattr(self, f.name)[envs] for f in fields(self)})


class VecEnv(Protocol):
    """A batch of environments. Episodes restart by themselves; nothing is returned, everything is written to ``out``.

    Random numbers depend on (seed, index of the environment, its own step count) alone, never on the batch, the
    number of threads or the device.
    """

    spec: EnvSpec

    def reset(self, out: StepArrays) -> None:
        """Start a new episode everywhere; writes obs, state, avail_actions, alive."""

    def step(self, action: Array, out: StepArrays) -> None:
        """Take one step: ``action`` is int32 [E, N] (discrete) or float32 [E, N, A] (continuous)."""

    def step_async(self, action: Array, out: StepArrays) -> None:
        """Begin a step whose results are in ``out`` after :meth:`step_wait`."""

    def step_wait(self) -> None:
        """Wait for the step begun by :meth:`step_async`."""

    def state_dict(self) -> dict[str, Array]:
        """Everything an exact resume needs, as plain arrays."""

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Continue exactly where ``state_dict`` was taken; raises ``UsageError`` on other shapes."""

    def close(self) -> None:
        """Release processes and memory; safe to call twice."""


@runtime_checkable
class UnevenVecEnv(VecEnv, Protocol):
    """Environments that take turns of their own: those that are done first can go on first."""

    uneven: bool
    """Whether that is worth while; if not, `step` them together."""

    def send(self, action: Array, rows: Sequence[int] | NDArray[np.intp]) -> None:
        """Begin a step in ``rows`` alone, which must wait for an action; ``action`` is that of all, [E, N]."""

    def recv(self, out: StepArrays, minimum: int = 1) -> NDArray[np.intp]:
        """Wait until ``minimum`` of the environments have done their step; write their rows and return them."""

    def metrics(self) -> dict[str, float]:
        """What went wrong so far, counted, by the names of metrics."""
