"""What a policy makes of its network's outputs: a choice among actions, or normally distributed real vectors.

The outputs that are handed around are logits [..., A], or moments [..., 2A] (mean and log standard deviation); every
method takes either, with what is available [..., A] beside it.
"""

from math import log
from typing import Any, Protocol

import torch
from torch import Tensor

from kpg_fast.envs import EnvSpec
from kpg_fast.kernels import gaussian_policy, policy
from kpg_fast.kernels.k_level_surrogate import Surrogate, k_level_surrogate, surrogate_of_log_prob
from kpg_fast.kernels.layout import Parameters
from kpg_fast.kernels.lookahead import log_prob_difference
from kpg_fast.seeds import split


class ActionDistribution(Protocol):
    """Of all agents' actions, each agent's by itself."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameters of one set that are no network's."""

    def initialise(self, parameters: Parameters) -> None:
        """Write their initial values, [G, ...]."""

    def outputs(self, parameters: Parameters, y: Tensor) -> Tensor:
        """The outputs [S, T, E, N, .] of what the networks gave [S, T, E, N, A]."""

    def sample(self, outputs: Tensor, avail: Tensor, *who: Any, **how: Any) -> tuple[Tensor, Tensor]:
        """Actions and their log-probabilities; see :func:`kpg_fast.kernels.policy.sample`."""

    def log_prob(self, outputs: Tensor, avail: Tensor, action: Tensor) -> Tensor:
        """log pi(a) [...]; no gradient."""

    def log_prob_difference(self, outputs: Tensor, change: Tensor, avail: Tensor, action: Tensor) -> Tensor:
        """How log pi(a) changes with the outputs; see :mod:`kpg_fast.kernels.lookahead`."""

    def surrogate(self, outputs: Tensor, avail: Tensor, action: Tensor, *rows: Tensor | None, **how: Any) -> Surrogate:
        """See :func:`kpg_fast.kernels.k_level_surrogate.k_level_surrogate`."""

    def for_env(self, action: Tensor) -> Tensor:
        """What the environment takes for an action."""

    def cpu(self) -> "ActionDistribution":
        """The same for tensors on the CPU."""


class Categorical:
    """One of A actions, of which some are available."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """None."""
        return {}

    def initialise(self, parameters: Parameters) -> None:
        """Nothing."""

    def outputs(self, parameters: Parameters, y: Tensor) -> Tensor:
        """Logits are the network's own."""
        return y

    def sample(self, outputs: Tensor, avail: Tensor, *who: Any, **how: Any) -> tuple[Tensor, Tensor]:
        """Actions int32 [...]."""
        return policy.sample(outputs, avail, *who, **how)

    def log_prob(self, outputs: Tensor, avail: Tensor, action: Tensor) -> Tensor:
        """See :class:`ActionDistribution`."""
        return policy.log_prob_entropy(outputs.detach(), avail, action)[0]

    def log_prob_difference(self, outputs: Tensor, change: Tensor, avail: Tensor, action: Tensor) -> Tensor:
        """See :class:`ActionDistribution`."""
        return log_prob_difference(outputs, change, avail, action)

    def surrogate(self, outputs: Tensor, avail: Tensor, action: Tensor, *rows: Tensor | None, **how: Any) -> Surrogate:
        """See :class:`ActionDistribution`."""
        return k_level_surrogate(outputs, avail, action, *rows, **how)  # type: ignore[arg-type]

    def for_env(self, action: Tensor) -> Tensor:
        """The action itself."""
        return action

    def cpu(self) -> "Categorical":
        """It holds no tensors."""
        return self


class Gaussian:
    """Real vectors with independent entries, the mean of which depends on the observation and the deviation does not.

    Actions are in units in which an actuator's bounds are -1 and 1; the environment gets them cut to these.

    Args:
        spec: of the environment.
        initial_std: standard deviation before anything is learned.
        device: of the tensors it takes.
    """

    def __init__(self, spec: EnvSpec, initial_std: float, device: torch.device | None = None) -> None:
        assert spec.action_low is not None
        assert spec.action_high is not None
        self.spec, self.initial_std = spec, initial_std
        self.low, self.high = (torch.from_numpy(x).to(device) for x in (spec.action_low, spec.action_high))
        self.moving = self.high > self.low  # [N, A]: not where an agent has fewer actuators than others

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """One deviation an actuator."""
        return {"log_std": (self.low.shape[1],)}

    def initialise(self, parameters: Parameters) -> None:
        """All deviations are the same."""
        parameters["log_std"].fill_(log(self.initial_std))

    def outputs(self, parameters: Parameters, y: Tensor) -> Tensor:
        """Moments: the deviation of each parameter set beside the means of its agents."""
        log_std = split(parameters["log_std"], 0, len(y))[:, None, None]  # [S, 1, 1, 1 or N, A]
        return torch.cat((y, log_std.expand_as(y)), -1)

    def sample(self, outputs: Tensor, avail: Tensor, *who: Any, **how: Any) -> tuple[Tensor, Tensor]:
        """Actions [..., A]."""
        return gaussian_policy.sample(outputs, self.moving, *who, **how)

    def log_prob(self, outputs: Tensor, avail: Tensor, action: Tensor) -> Tensor:
        """See :class:`ActionDistribution`."""
        return gaussian_policy.log_prob_entropy(outputs.detach(), action, self.moving)[0]

    def log_prob_difference(self, outputs: Tensor, change: Tensor, avail: Tensor, action: Tensor) -> Tensor:
        """See :class:`ActionDistribution`."""
        return gaussian_policy.log_prob_difference(outputs, change, action, self.moving)

    def surrogate(self, outputs: Tensor, avail: Tensor, action: Tensor, *rows: Tensor | None, **how: Any) -> Surrogate:
        """See :class:`ActionDistribution`."""
        of_action = gaussian_policy.log_prob_entropy(outputs, action, self.moving)
        return surrogate_of_log_prob(*of_action, *rows, **how)  # type: ignore[arg-type]

    def for_env(self, action: Tensor) -> Tensor:
        """Cut to the bounds, in the environment's units."""
        return scaled(action.clamp(-1, 1), self.low, self.high)

    def cpu(self) -> "Gaussian":
        """See :class:`ActionDistribution`."""
        return Gaussian(self.spec, self.initial_std)


def distribution_of(spec: EnvSpec, initial_std: float, device: torch.device | None = None) -> ActionDistribution:
    """What policies of this environment give."""
    return Gaussian(spec, initial_std, device) if spec.continuous else Categorical()


def scaled(action: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Actions [..., A] in [-1, 1] between the bounds instead."""
    return low + (action + 1) * ((high - low) / 2)
