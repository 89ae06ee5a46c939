"""Normal noise on the CPU, in csrc/gaussian_policy.cpp."""

from torch import Tensor

from kpg_fast import _C
from kpg_fast.kernels.layout import empty, view


def standard_normal(seed: Tensor, row: Tensor, step: Tensor, stream: int, size: int) -> Tensor:
    """Return float32 [..., size]; seed, row and step are int64 [...]."""
    noise = empty(*row.shape, size)
    counters = [view(counter.reshape(-1).contiguous()) for counter in (seed, row, step)]
    _C.standard_normal(*counters, stream, view(noise.view(-1, size)))
    return noise
