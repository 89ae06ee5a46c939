"""What the Triton kernels share: functions of float32 numbers, and how a launch is cut into blocks.

A number that changes while a captured graph is replayed (learning rate, clip range) may be given to a launch as a
float or as a tensor of one element on the device; ``number`` reads either.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language import core

# Triton's interpreter (3.6 and 3.9) truncates to bfloat16 and multiplies its bits as if they were integers. There
# factors are rounded by ``_to_bfloat16`` and multiplied in float32: what a tensor core does.
_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)

# A rate as a host number, baked into a captured graph, or as a one-element device tensor that each replay reads anew.
Number = float | Tensor


@triton.jit
def number(value):
    """The value itself, or what it points to."""
    value = core.to_tensor(value)  # by this name: the interpreter replaces what it finds among the globals
    if value.dtype.is_ptr():
        return tl.load(value)
    else:
        return value


@triton.jit
def wide(count):
    """A count in 64 bits; a launch makes a constant of a count of one, which has no ``to``."""
    return core.to_tensor(count).to(tl.int64)


@triton.jit
def within(x, low, high):
    """x between two bounds, and not a number where x is none: a card's minimum and maximum would lose that."""
    return tl.where(x < low, low, tl.where(x > high, high, x))


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x)."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """By e^2|x|, and near 0, where that would cancel, by a polynomial fitted to 3e-9 of the result."""
    a = tl.abs(x)
    s = x * x
    far = 1.0 - 2.0 / (tl.exp(2.0 * a) + 1.0)
    near = a + a * s * (-0.33333298 + s * (0.13331915 + s * (-0.05378329 + s * (0.02079462 - s * 0.00589395))))
    size = tl.where(a < 0.6, near, far)
    return tl.where(x < 0, -size, size)


@triton.jit
def expm1_less(x):
    """e^x - 1 - x without cancellation near 0."""
    series = x * x * (1.0 / 2 + x * (1.0 / 6 + x * (1.0 / 24 + x * (1.0 / 120 + x * (1.0 / 720 + x * (1.0 / 5040))))))
    return tl.where(tl.abs(x) < 0.5, series, tl.exp(x) - 1.0 - x)


@triton.jit
def _to_bfloat16(x):
    """Rounded to the nearest, of equals to the even."""
    if _INTERPRETED:
        bits = x.to(tl.float32).to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        return bits.to(tl.float32, bitcast=True)
    else:
        return x.to(tl.bfloat16)


@triton.jit
def product(a, b, to, PRECISION: tl.constexpr):
    """to + a @ b, summed in float32; the factors as they are (fp32), or rounded to tf32 or bfloat16."""
    if PRECISION == "bf16":
        return tl.dot(_to_bfloat16(a), _to_bfloat16(b), to)
    elif PRECISION == "tf32":
        return tl.dot(a, b, to, input_precision="tf32")
    else:
        return tl.dot(a, b, to, input_precision="ieee")


def pad(size: int, least: int = 1) -> int:
    """The power of two that holds ``size``: a block of Triton has no other sizes; products want 16 at least."""
    return max(1 << (size - 1).bit_length(), least)


def capability(device: torch.device) -> int:
    """The major compute capability of a card (8 Ampere, 9 Hopper); 9 where there is none, as for the interpreter."""
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 9
