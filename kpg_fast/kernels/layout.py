"""What all ops share: how tensors reach the compiled code, in which precision products run, and the common checks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from kpg_fast import _C
from kpg_fast.errors import UsageError

Array = NDArray[Any]

Parameters = Mapping[str, Tensor]
"""The tensors of one network by name, every one with the agents' axis in front."""

PRECISIONS = ("fp32", "tf32", "bf16")


def view(tensor: Tensor) -> Array:
    """The tensor's memory as an array of the same shape and strides."""
    return tensor.detach().numpy()


def dense(tensor: Tensor, axes: int) -> Tensor:
    """The tensor itself if its last ``axes`` axes are contiguous, else a contiguous copy."""
    expected = 1
    for size, stride in zip(reversed(tensor.shape[-axes:]), reversed(tensor.stride()[-axes:]), strict=True):
        if size > 1 and stride != expected:
            return tensor.contiguous()
        expected *= size
    return tensor


KEPT_FROM = 1 << 15  # numbers; below, the system's allocator reuses memory by itself


def empty(*shape: int) -> Tensor:
    """Uninitialised float32 whose memory, if there is much of it, is kept for the next tensor when this one is gone.

    Fresh pages cost more than the arithmetic that fills them, and an update fills the same ones again and again.
    """
    if prod(shape) < KEPT_FROM:
        return torch.empty(shape)
    return torch.from_numpy(_C.take_memory(shape))


class _GradientSettings(NamedTuple):
    precision: str | None = None
    window: int = 0


_gradient_settings = _GradientSettings()


@contextmanager
def gradients_in(precision: str | None, window: int = 0) -> Iterator[None]:
    """Take the gradients inside otherwise than their forward pass says.

    Lookahead levels differentiate the float32 pass of the committed level in bfloat16, or cut in time. This is a
    setting of the process, not of a thread: autograd has threads of its own.

    Args:
        precision: of their products; None: that of the forward pass.
        window: cut a recurrent pass into windows of so many steps and let no gradient pass from one to the one before;
            0: no windows. Float64 has none.
    """
    global _gradient_settings
    if precision is not None:
        check_precision(precision)
    before, _gradient_settings = _gradient_settings, _GradientSettings(precision, window)
    try:
        yield
    finally:
        _gradient_settings = before


def gradient_precision(of_forward: str) -> str:
    """The precision in which the gradient of a pass in ``of_forward`` is to run now."""
    return _gradient_settings.precision or of_forward


def gradient_window() -> int:
    """Steps of a window that no gradient leaves backwards; 0: no windows."""
    return _gradient_settings.window


def check_precision(precision: str) -> None:
    """Raise ``UsageError`` for a precision there is none of."""
    if precision not in PRECISIONS:
        raise UsageError(f"precision must be one of {PRECISIONS}, not {precision!r}")


def rounds(precision: str) -> bool:
    """Whether a CPU rounds the factors of products in this precision to bfloat16; ``UsageError`` for tf32."""
    if precision == "tf32":
        raise UsageError("precision tf32 is one of GPUs; on a CPU there are fp32 and bf16")
    return precision == "bf16"


def check_dtypes(name: str, *tensors: Tensor | None) -> torch.dtype:
    """The one dtype of all tensors, float32 or float64; ``UsageError`` otherwise."""
    dtypes = {tensor.dtype for tensor in tensors if tensor is not None}
    if len(dtypes) != 1 or not dtypes <= {torch.float32, torch.float64}:
        raise UsageError(f"{name} takes float32 or float64 tensors, all of one kind, not {sorted(map(str, dtypes))}")
    return dtypes.pop()


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ``UsageError`` unless the tensor has this shape."""
    if tensor.shape != shape:
        raise UsageError(f"{name} must be {list(shape)}; got {list(tensor.shape)}")
