"""States in units of their running mean and standard deviation, for critics and mixers of raw states."""

import torch
from torch import Tensor

_LEAST = 1e-2  # added to the deviation, so that what hardly ever changes stays small
_MOST = 10.0  # deviations, beyond which it is cut


class StateNorm:
    """Mean and deviation over all states that were sampled so far.

    Args:
        size: S, numbers of a state.
    """

    def __init__(self, size: int) -> None:
        self.count = torch.zeros(1, dtype=torch.float64)
        self.total, self.squares = (torch.zeros(size, dtype=torch.float64) for _ in range(2))

    def update(self, state: Tensor) -> None:
        """Take states [R, S] into account."""
        exact = state.double()
        self.count += len(state)
        self.total += exact.sum(0)
        self.squares += exact.square().sum(0)

    def __call__(self, state: Tensor) -> Tensor:
        """States [R, S] normalised, in place."""
        mean = self.total / self.count
        deviation = (self.squares / self.count - mean.square()).clamp_min(0).sqrt() + _LEAST
        return state.sub_(mean.to(state.dtype)).div_(deviation.to(state.dtype)).clamp_(-_MOST, _MOST)

    def tensors(self) -> dict[str, Tensor]:
        """For an exact resume."""
        return {f"state_norm/{name}": value for name, value in vars(self).items()}
