"""Several seeds as one batch: in memory their environments lie side by side, and the learner sees each by itself.

Sizes: S seeds, E environments of each. Networks multiply all seeds together; whatever sums over rows (means, norms) is
taken seed by seed, so that each comes out as if it were alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def split(x: Tensor, axis: int, parts: int) -> Tensor:
    """An axis as two, the first of ``parts``."""
    return x.view(*x.shape[:axis], parts, x.shape[axis] // parts, *x.shape[axis + 1 :])


def by_seed(x: Tensor, seeds: int) -> Tensor:
    """[T, S * E, ...] as [S, T, E, ...]."""
    return split(x, 1, seeds).transpose(0, 1)


def side_by_side(x: Tensor) -> Tensor:
    """[S, T, E, ...] as [T, S * E, ...]."""
    return x.transpose(0, 1).flatten(1, 2)


def take(x: Tensor, samples: Tensor) -> Tensor:
    """Samples [S, B] of [S, X, E, ...], each seed's own: [S, X, B, ...], copied."""
    if len(x) == 1:
        return x[0].index_select(1, samples[0])[None]
    seeds, steps = (torch.arange(size, device=x.device) for size in x.shape[:2])
    return x[seeds[:, None, None], steps[:, None], samples[:, None]]


def per_seed(f: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``f``, which takes and returns tensors [S, ...] and sums within a seed, of each seed by itself.

    On a CPU torch cuts sums by the number of threads and of results: together with others a seed would not come out
    bit for bit as alone. A card takes all at once.
    """
    if len(tensors[0]) == 1 or tensors[0].device.type != "cpu":
        return f(*tensors)
    return torch.cat([f(*(x[seed : seed + 1] for x in tensors)) for seed in range(len(tensors[0]))])


def total(x: Tensor) -> Tensor:
    """Sums [S, 1, ...] over all axes but the first."""
    return x.sum(tuple(range(1, x.dim())), keepdim=True)
