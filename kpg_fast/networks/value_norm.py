"""Values in units of the returns' running mean and standard deviation, so that a critic sees targets of one scale."""

import torch
from torch import Tensor

_KEPT = 0.99999
_SMALLEST_VARIANCE = 1e-2


class ValueNorm:
    """Running statistics of the returns (MAPPO's ValueNorm, Yu et al., arXiv 2103.01955, with its constants).

    mean = m / d, variance = max(s / d - mean^2, 0.01), where every batch of returns moves

        m <- b m + (1 - b) mean(returns),  s <- b s + (1 - b) mean(returns^2),  d <- b d + (1 - b),  b = 0.99999
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.statistics = torch.zeros(3, dtype=dtype)
        """m, s, d; before the first batch values pass unchanged."""

    def update(self, returns: Tensor, mask: Tensor) -> None:
        """Take note of the returns where ``mask`` is true; both of any one shape."""
        weight = mask.to(returns.dtype)
        count = weight.sum().clamp_min(1)
        now = torch.stack(((returns * weight).sum() / count, (returns.square() * weight).sum() / count))
        self.statistics.mul_(_KEPT)
        self.statistics[:2] += (1 - _KEPT) * now
        self.statistics[2] += 1 - _KEPT

    def normalise(self, returns: Tensor) -> Tensor:
        """Returns in the critic's units."""
        mean, deviation = self._scale()
        return (returns - mean) / deviation

    def restore(self, values: Tensor) -> Tensor:
        """Values of the critic in the units of the returns."""
        mean, deviation = self._scale()
        return values * deviation + mean

    def _scale(self) -> tuple[Tensor, Tensor]:
        m, s, d = self.statistics
        if d == 0:
            return torch.zeros_like(m), torch.ones_like(m)
        mean = m / d
        return mean, (s / d - mean.square()).clamp_min(_SMALLEST_VARIANCE).sqrt()
