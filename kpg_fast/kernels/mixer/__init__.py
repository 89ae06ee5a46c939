"""QMIX's mixer (Rashid et al., arXiv 1803.11485) over per-agent utilities, as FACMAC uses it (arXiv 2003.06709).

    hidden_m = elu(b1_m + sum_i q_i |w1_im|)        q_tot = sum_m |w2_m| hidden_m + v

w1, b1, w2 and v come from the state by networks of the caller. The absolute values make q_tot monotonic in every q_i;
without them (``monotonic=False``) it is FACMAC's non-monotonic mixer.

Shapes: q [N, R], w1 [R, N, M], b1 and w2 [R, M], v and q_tot [R]; N agents, R rows (samples), M hidden units. Float32
runs in csrc or, on a GPU, in Triton; float64 tensors always take the definition in ``ref.py`` (for tests).
"""

from typing import Any

import torch
from torch import Tensor

from kpg_fast.errors import UsageError
from kpg_fast.kernels.mixer import cpu, ref

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]


def mix(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor, monotonic: bool = True) -> Tensor:
    """Return q_tot [R]; differentiable in all five tensors.

    Args:
        q: utilities [N, R].
        w1: [R, N, M].
        b1: [R, M].
        w2: [R, M].
        v: [R].
        monotonic: whether w1 and w2 are taken by their absolute value.

    Raises:
        UsageError: shapes that do not fit.
    """
    _check(q, w1, b1, w2, v)
    differentiated = torch.is_grad_enabled() and any(a.requires_grad for a in (q, w1, b1, w2, v))
    # an op of the library costs more than the arithmetic of a small batch
    q_tot: Tensor = (_mix if differentiated else _implementation(q).mix)(q, w1, b1, w2, v, monotonic)
    return q_tot


def mix_backward(dq_tot: Tensor, q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, monotonic: bool = True) -> Gradients:
    """Return the gradients of q, w1, b1 and w2 for that of q_tot, ``dq_tot`` [R]; v's is dq_tot itself.

    No gradient of its own. Where a weight is 0 its gradient under ``monotonic`` is 0, as of torch's ``abs``.
    """
    _check(q, w1, b1, w2, dq_tot)
    grads: Gradients = _implementation(q).mix_backward(dq_tot, q, w1, b1, w2, monotonic)
    return grads


def mix_one_live(
    q_own: Tensor, q_others: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor, monotonic: bool = True
) -> tuple[Tensor, Tensor]:
    """Return q_tot and its slope d q_tot / d q_i, both [N, R], where row i mixes q_own[i] with q_others[j], j != i.

    The N mixtures of a row are one pass: what the others contribute is summed once. No gradient.

    Args:
        q_own: the live agents' utilities [N, R].
        q_others: the utilities of all agents one level down [N, R]; row i of the result does not read row i of it.
        w1: as in :func:`mix`, like the rest.
        b1: [R, M].
        w2: [R, M].
        v: [R].
        monotonic: whether w1 and w2 are taken by their absolute value.
    """
    _check(q_own, w1, b1, w2, v)
    if q_others.shape != q_own.shape:
        raise UsageError(f"q_others must be {tuple(q_own.shape)} like q_own, not {tuple(q_others.shape)}")
    mixed: tuple[Tensor, Tensor] = _implementation(q_own).mix_one_live(q_own, q_others, w1, b1, w2, v, monotonic)
    return mixed


def _check(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor) -> None:
    n, r = q.shape
    m = b1.shape[-1]
    for name, tensor, shape in (("w1", w1, (r, n, m)), ("b1", b1, (r, m)), ("w2", w2, (r, m)), ("v", v, (r,))):
        if tensor.shape != shape:
            raise UsageError(f"{name} must be {shape} for q {tuple(q.shape)}, not {tuple(tensor.shape)}")


def _implementation(q: Tensor) -> Any:
    if q.dtype != torch.float32:
        return ref
    if q.device.type == "cuda":
        from kpg_fast.kernels.mixer import gpu  # here, because it imports Triton

        return gpu
    return cpu if q.device.type == "cpu" else ref


@torch.library.custom_op("kpg_fast::mix", mutates_args=())
def _mix(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor, monotonic: bool) -> Tensor:
    q_tot: Tensor = _implementation(q).mix(q, w1, b1, w2, v, monotonic)
    return q_tot


@_mix.register_fake
def _(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor, monotonic: bool) -> Tensor:
    return torch.empty_like(v)


@torch.library.custom_op("kpg_fast::mix_backward", mutates_args=())
def _mix_backward(
    dq_tot: Tensor, q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, monotonic: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grads: Gradients = _implementation(q).mix_backward(dq_tot, q, w1, b1, w2, monotonic)
    return grads


@_mix_backward.register_fake
def _(
    dq_tot: Tensor, q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, monotonic: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(w1), torch.empty_like(b1), torch.empty_like(w2)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.monotonic = inputs[5]


def _gradient(ctx: Any, dq_tot: Tensor) -> tuple[Tensor | None, ...]:
    return (*_mix_backward(dq_tot.contiguous(), *ctx.saved_tensors, ctx.monotonic), dq_tot, None)


_mix.register_autograd(_gradient, setup_context=_save)
