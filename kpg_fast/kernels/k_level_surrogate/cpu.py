"""The surrogate on the CPU, in csrc/policy_surrogate.hpp."""

import torch
from torch import Tensor

from kpg_fast import _C
from kpg_fast.errors import UsageError
from kpg_fast.kernels.layout import dense, empty, view


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
    clips: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (loss, dlogits, log_prob, stats); dlogits has the layout of the logits."""
    if clips is not None:
        raise UsageError("k_level_surrogate reads its clip ranges from a tensor on a GPU only")
    logits = dense(logits, 1)
    loss, stats = empty(), empty(7)
    dlogits, log_prob = torch.empty_like(logits), empty(*action.shape)
    _C.k_level_surrogate(
        view(logits),
        None if avail is None else view(dense(avail, 1)),
        view(action.int()),
        view(log_prob_old),
        view(advantage),
        view(mask.float()),
        None if log_m is None else view(log_m),
        clip_eps,
        ent_coef,
        clip_mode,
        others_clip_eps,
        view(loss),
        view(dlogits),
        view(log_prob),
        view(stats),
    )
    return loss, dlogits, log_prob, stats


def others_log_ratio(log_prob: Tensor, log_prob_old: Tensor, alive: Tensor | None) -> Tensor:
    """Return log M_i [T, E, N]."""
    log_m = empty(*log_prob.shape)
    _C.others_log_ratio(view(log_prob), view(log_prob_old), None if alive is None else view(alive), view(log_m))
    return log_m
