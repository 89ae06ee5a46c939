"""Observations and states in units of their running mean and standard deviation, so that networks see one scale."""

import torch
from torch import Tensor

from kpg_fast.seeds import per_seed, total

_LEAST = 1e-2  # added to the deviation, so that what hardly ever changes stays small
_MOST = 10.0  # deviations, beyond which it is cut


class InputNorm:
    """Mean and deviation over all inputs that were seen so far, for each of S seeds by itself.

    Args:
        size: I, numbers of an input.
        seeds: S.
        device: of the inputs.
    """

    def __init__(self, size: int, seeds: int = 1, device: torch.device | None = None) -> None:
        self.count = torch.zeros(seeds, 1, dtype=torch.float64, device=device)
        self.total, self.squares = (torch.zeros(seeds, size, dtype=torch.float64, device=device) for _ in range(2))

    def update(self, x: Tensor, counted: Tensor) -> None:
        """Take inputs [S, ..., I] into account where ``counted`` [S, ...] is true."""
        sums = per_seed(_sums, x, counted)
        count, of_inputs, of_squares = sums.tensor_split([1, 1 + x.shape[-1]], 1)
        self.count += count
        self.total += of_inputs
        self.squares += of_squares

    def __call__(self, x: Tensor, sets: slice = slice(None), out: Tensor | None = None) -> Tensor:
        """Inputs [S, ..., I] of the seeds ``sets`` normalised; before any was seen they are only cut."""
        count = self.count[sets]
        seen = count.clamp_min(1)
        mean = self.total[sets] / seen
        deviation = (self.squares[sets] / seen - mean.square()).clamp_min(0).sqrt() + _LEAST
        deviation = torch.where(count > 0, deviation, 1.0)
        mean, deviation = (m.to(x.dtype).view(len(m), *(1,) * (x.dim() - 2), -1) for m in (mean, deviation))
        return torch.sub(x, mean, out=out).div_(deviation).clamp_(-_MOST, _MOST)

    def of_seed(self, index: int) -> "InputNorm":
        """That of one seed on the CPU; it sees what the others take into account unless they are on a card."""
        part = InputNorm(0)
        for name, value in vars(self).items():
            setattr(part, name, value[index : index + 1].cpu())
        return part

    def tensors(self, index: int = 0) -> dict[str, Tensor]:
        """Those of a seed, for an exact resume."""
        return {name: value[index] for name, value in vars(self).items()}


def _sums(x: Tensor, counted: Tensor) -> Tensor:
    """Count, sums and sums of squares [S, 1 + 2 I]."""
    exact = x.double().masked_fill(~counted[..., None], 0)
    rows = exact.flatten(1, -2)
    return torch.cat((total(counted.double()).view(-1, 1), rows.sum(1), rows.square().sum(1)), 1)
