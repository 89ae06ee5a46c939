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
    """The same of log-probabilities and entropies [T, E, N]."""
    log_rho = log_prob - log_prob_old
    log_m = torch.zeros_like(log_rho) if log_m is None else log_m.detach()
    low, high = 1 - clip_eps, 1 + clip_eps
    m = log_m.exp()
    if clip_mode == "own":
        ratio, scale = log_rho.exp(), m * advantage
    elif clip_mode == "double":
        ratio, scale = log_rho.exp() * m.clamp(1 - others_clip_eps, 1 + others_clip_eps), advantage
    else:
        ratio, scale = (log_rho + log_m).exp(), advantage
    objective = torch.minimum(ratio * scale, ratio.clamp(low, high) * scale)
    weight = mask.to(log_prob.dtype)
    total = weight.sum().clamp_min(torch.finfo(log_prob.dtype).tiny)

    def mean(a: Tensor) -> Tensor:
        return (weight * a.masked_fill(weight == 0, 0)).sum() / total

    policy_loss, mean_entropy = -mean(objective), mean(entropy)
    loss = policy_loss - ent_coef * mean_entropy
    clipped = (ratio * scale > ratio.clamp(low, high) * scale).to(log_prob.dtype)
    approx_kl = mean(log_rho.exp() - 1 - log_rho)
    stats = [policy_loss, mean_entropy, mean(clipped), approx_kl, mean(ratio), mean(m), weight.sum()]
    return loss, log_prob.detach(), torch.stack(stats).detach()
