"""The value loss on the CPU, in csrc/gae.cpp."""

from torch import Tensor

from kpg_fast import _C
from kpg_fast.errors import UsageError
from kpg_fast.kernels.layout import empty, view


def value_loss(
    value: Tensor, value_old: Tensor, returns: Tensor, mask: Tensor, clip_eps: float | None, clip: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return (loss, dvalue)."""
    if clip is not None:
        raise UsageError("value_loss reads its clip range from a tensor on a GPU only")
    loss, dvalue = empty(), empty(*value.shape)
    rows = [view(tensor.reshape(-1).contiguous()) for tensor in (value, value_old, returns, mask.float())]
    _C.value_loss(*rows, clip_eps, view(loss), view(dvalue.view(-1)))
    return loss, dvalue
