"""Definition of the mixer in plain torch."""

import torch
from torch import Tensor


def mix(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor, monotonic: bool) -> Tensor:
    """See :func:`kpg_fast.kernels.mixer.mix`."""
    if monotonic:
        w1, w2 = w1.abs(), w2.abs()
    hidden = torch.nn.functional.elu(torch.einsum("nr,rnm->rm", q, w1) + b1)
    return (hidden * w2).sum(1) + v


def mix_backward(
    dq_tot: Tensor, q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, monotonic: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`kpg_fast.kernels.mixer.mix_backward`."""
    a1, a2 = (w1.abs(), w2.abs()) if monotonic else (w1, w2)
    before = torch.einsum("nr,rnm->rm", q, a1) + b1
    hidden = torch.nn.functional.elu(before)
    da2 = dq_tot[:, None] * hidden
    db1 = dq_tot[:, None] * a2 * torch.where(before > 0, torch.ones_like(before), before.exp())
    da1 = q.T[:, :, None] * db1[:, None, :]
    dq = torch.einsum("rm,rnm->nr", db1, a1)
    if monotonic:
        da1, da2 = da1 * w1.sign(), da2 * w2.sign()
    return dq, da1, db1, da2


def mix_one_live(
    q_own: Tensor, q_others: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor, monotonic: bool
) -> tuple[Tensor, Tensor]:
    """See :func:`kpg_fast.kernels.mixer.mix_one_live`."""
    q_tot, slope = [], []
    for i in range(q_own.shape[0]):
        live = q_own[i].detach().requires_grad_()
        q = torch.stack([live if j == i else other for j, other in enumerate(q_others.detach())])
        with torch.enable_grad():
            mixed = mix(q, w1.detach(), b1.detach(), w2.detach(), v.detach(), monotonic)
        slope.append(torch.autograd.grad(mixed.sum(), live)[0])
        q_tot.append(mixed.detach())
    return torch.stack(q_tot), torch.stack(slope)
