"""Normal noise on the GPU: a program takes a block of rows, a thread the numbers made of the same words."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kpg_fast.kernels.policy.gpu import philox

_ROWS = 128
_TWO_PI = tl.constexpr(6.283185307179586)


@triton.jit
def _pair(first, second):
    """Box and Muller's two normal numbers of two words, in double precision, as on the CPU."""
    radius = tl.sqrt(-2.0 * tl.log(((first >> 8).to(tl.float64) + 1.0) * (1.0 / 16777216)))
    angle = _TWO_PI * ((second >> 8).to(tl.float64) * (1.0 / 16777216))
    return (radius * tl.cos(angle)).to(tl.float32), (radius * tl.sin(angle)).to(tl.float32)


@triton.jit
def _normal_kernel(seed, row_number, step, stream, noise, rows, size, ROWS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    block, inside = tl.program_id(1), row < rows
    key, who = tl.load(seed + row, inside, 0), tl.load(row_number + row, inside, 0)
    w0, w1, w2, w3 = philox(key, who, stream + block, tl.load(step + row, inside, 0))
    n0, n1 = _pair(w0, w1)
    n2, n3 = _pair(w2, w3)
    to, end = row * size + block * 4, tl.where(inside, (row + 1) * size, 0)
    tl.store(noise + to, n0, to < end)
    tl.store(noise + to + 1, n1, to + 1 < end)
    tl.store(noise + to + 2, n2, to + 2 < end)
    tl.store(noise + to + 3, n3, to + 3 < end)


def standard_normal(seed: Tensor, row: Tensor, step: Tensor, stream: int, size: int) -> Tensor:
    """Return float32 [..., size]; seed, row and step are int64 [...]."""
    noise = torch.empty((*row.shape, size), device=row.device)
    grid = (triton.cdiv(row.numel(), _ROWS), triton.cdiv(size, 4))
    _normal_kernel[grid](
        seed.contiguous(), row.contiguous(), step.contiguous(), stream, noise, row.numel(), size, ROWS=_ROWS
    )
    return noise
