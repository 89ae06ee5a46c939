"""The mixer on the CPU: one pass over the rows in csrc/mixer.cpp; a row belongs to one thread."""

import torch
from torch import Tensor

from kpg_fast import _C


def mix(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor, monotonic: bool) -> Tensor:
    """See :func:`kpg_fast.kernels.mixer.mix`; float32."""
    q_tot = torch.empty_like(v, memory_format=torch.contiguous_format)
    _C.mix(*_arrays(q, w1, b1, w2, v), monotonic, q_tot.numpy())
    return q_tot


def mix_backward(
    dq_tot: Tensor, q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, monotonic: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`kpg_fast.kernels.mixer.mix_backward`; float32."""
    grads = tuple(torch.empty_like(a, memory_format=torch.contiguous_format) for a in (q, w1, b1, w2))
    _C.mix_backward(*_arrays(dq_tot, q, w1, b1, w2), monotonic, *(grad.numpy() for grad in grads))
    return grads  # type: ignore[return-value]


def mix_one_live(
    q_own: Tensor, q_others: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor, monotonic: bool
) -> tuple[Tensor, Tensor]:
    """See :func:`kpg_fast.kernels.mixer.mix_one_live`; float32."""
    q_tot, slope = (torch.empty_like(q_own, memory_format=torch.contiguous_format) for _ in range(2))
    _C.mix_one_live(*_arrays(q_own, q_others, w1, b1, w2, v), monotonic, q_tot.numpy(), slope.numpy())
    return q_tot, slope


def _arrays(*tensors: Tensor) -> list[object]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
