"""Definition of the K-level PPO surrogate in plain torch."""

import torch
from torch import Tensor

from kpg_fast.kernels.policy.ref import log_prob_entropy


def others_log_ratio(log_prob: Tensor, log_prob_old: Tensor, alive: Tensor | None) -> Tensor:
    """See :func:`kpg_fast.kernels.k_level_surrogate.others_log_ratio`."""
    log_ratio = log_prob - log_prob_old
    if alive is not None:
        log_ratio = log_ratio.masked_fill(~alive, 0)
    return log_ratio.sum(dim=-1, keepdim=True) - log_ratio


def k_level_surrogate(
    logits: Tensor,
    avail: Tensor | None,
    action: Tensor,
    log_prob_old: Tensor,
    advantage: Tensor,
    mask: Tensor,
    log_m: Tensor | None,
    clip_eps: float,
    ent_coef: float,
    clip_mode: str,
    others_clip_eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (loss [], log_prob [T, E, N], stats [7]); formula and shapes in the package's docstring."""
    log_prob, entropy = log_prob_entropy(logits, avail, action)
    how = (clip_eps, ent_coef, clip_mode, others_clip_eps)
    return surrogate(log_prob, entropy, log_prob_old, advantage, mask, log_m, *how)


def surrogate(
    log_prob: Tensor,
    entropy: Tensor,
    log_prob_old: Tensor,
    advantage: Tensor,
    mask: Tensor,
    log_m: Tensor | None,
    clip_eps: float,
    ent_coef: float,
    clip_mode: str,
    others_clip_eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same of log-probabilities and entropies [T, E, N]; the clip ranges may be tensors."""
    log_rho = log_prob - log_prob_old
    log_m = torch.zeros_like(log_rho) if log_m is None else log_m.detach()
    low, high = 1 - clip_eps, 1 + clip_eps
    m, weight = log_m.exp(), mask.to(log_prob.dtype)
    log_ratio, factor, scale = log_rho, torch.ones_like(m), advantage
    if clip_mode == "own":
        scale = m * advantage
    elif clip_mode == "double":
        factor = m.clamp(1 - others_clip_eps, 1 + others_clip_eps)
    else:
        log_ratio = log_rho + log_m
    ratio = log_ratio.detach().exp() * factor
    bounded = ratio.clamp(low, high) * scale
    closed = ratio * scale > bounded
    # what has no slope is not differentiated: it may be too large for its exponential
    open_ratio = log_ratio.masked_fill(closed | (weight == 0), 0).exp() * factor
    objective = torch.where(closed, bounded, open_ratio * scale)
    total = weight.sum().clamp_min(torch.finfo(log_prob.dtype).tiny)

    def mean(a: Tensor) -> Tensor:
        return (weight * a.masked_fill(weight == 0, 0)).sum() / total

    policy_loss, mean_entropy = -mean(objective), mean(entropy)
    loss = policy_loss - ent_coef * mean_entropy
    clipped = closed.to(log_prob.dtype)
    approx_kl = mean(log_rho.exp() - 1 - log_rho)
    stats = [policy_loss, mean_entropy, mean(clipped), approx_kl, mean(ratio), mean(m), weight.sum()]
    return loss, log_prob.detach(), torch.stack(stats).detach()
