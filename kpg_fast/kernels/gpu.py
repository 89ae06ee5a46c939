"""What the Triton kernels share: functions of float32 numbers, and how a launch is cut into blocks.

A number that changes while a captured graph is replayed (learning rate, clip range) may be given to a launch as a
float or as a tensor of one element on the device; ``number`` reads either.
"""

import triton
import triton.language as tl
from torch import Tensor

# A rate as a host number, baked into a captured graph, or as a one-element device tensor that each replay reads anew.
Number = float | Tensor


@triton.jit
def number(value):
    """The value itself, or what it points to."""
    value = tl.to_tensor(value)
    if value.dtype.is_ptr():
        return tl.load(value)
    else:
        return value


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x)."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """Relative to its result also near 0, where 1 - e^-2|x| would cancel: there by its series, good to 1e-8."""
    a = tl.abs(x)
    e = tl.exp(-2.0 * a)
    far = (1.0 - e) / (1.0 + e)
    s = x * x
    near = a + a * s * (-1.0 / 3 + s * (2.0 / 15 + s * (-17.0 / 315 + s * (62.0 / 2835))))
    size = tl.where(a < 0.25, near, far)
    return tl.where(x < 0, -size, size)


@triton.jit
def expm1_less(x):
    """e^x - 1 - x without cancellation near 0."""
    series = x * x * (1.0 / 2 + x * (1.0 / 6 + x * (1.0 / 24 + x * (1.0 / 120 + x * (1.0 / 720 + x * (1.0 / 5040))))))
    return tl.where(tl.abs(x) < 0.5, series, tl.exp(x) - 1.0 - x)


def pad(size: int, least: int = 1) -> int:
    """The power of two that holds ``size``: a block of Triton has no other sizes; products want 16 at least."""
    return max(1 << (size - 1).bit_length(), least)
