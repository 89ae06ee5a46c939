"""Values in units of the returns' running mean and standard deviation, so that a critic sees targets of one scale."""

import torch
from torch import Tensor

from kpg_fast.seeds import per_seed, total

_KEPT = 0.99999
_SMALLEST_VARIANCE = 1e-2


class ValueNorm:
    """Running statistics of the returns (MAPPO's ValueNorm, Yu et al., arXiv 2103.01955, with its constants).

    mean = m / d, variance = max(s / d - mean^2, 0.01), where every batch of returns moves

        m <- b m + (1 - b) mean(returns),  s <- b s + (1 - b) mean(returns^2),  d <- b d + (1 - b),  b = 0.99999

    for each of S seeds by itself; returns and values are [S, T, E, N].
    """

    def __init__(self, seeds: int, dtype: torch.dtype, device: torch.device) -> None:
        self.statistics = torch.zeros(seeds, 3, dtype=dtype, device=device)
        """m, s, d of each seed; before the first batch values pass unchanged."""

    def update(self, returns: Tensor, mask: Tensor) -> None:
        """Take note of the returns where ``mask`` is true."""
        now = per_seed(_moments, returns, mask)
        self.statistics.mul_(_KEPT)
        self.statistics[:, :2] += (1 - _KEPT) * now
        self.statistics[:, 2] += 1 - _KEPT

    def normalise(self, returns: Tensor) -> Tensor:
        """Returns in the critic's units."""
        mean, deviation = self._scale()
        return (returns - mean) / deviation

    def restore(self, values: Tensor) -> Tensor:
        """Values of the critic in the units of the returns."""
        mean, deviation = self._scale()
        return values * deviation + mean

    def _scale(self) -> tuple[Tensor, Tensor]:
        m, s, d = self.statistics[:, :, None, None, None].unbind(1)
        known = d != 0
        mean = m / d
        deviation = (s / d - mean.square()).clamp_min(_SMALLEST_VARIANCE).sqrt()
        return torch.where(known, mean, 0.0), torch.where(known, deviation, 1.0)


def _moments(returns: Tensor, mask: Tensor) -> Tensor:
    weight = mask.to(returns.dtype)
    count = total(weight).clamp_min(1)
    return torch.cat((total(returns * weight) / count, total(returns.square() * weight) / count), 1).flatten(1)
