"""PPO's surrogate with the ratios of the other agents one level down (K-MAPPO), all agents in one pass.

    log rho_i = log pi_theta(a_i) - log pi_old(a_i)
    log M_i   = sum_{j != i} [log pi_{theta_j^(k-1)}(a_j) - log pi_old(a_j)]        no gradient; M_i = 1 at level 1
    R_i       = rho_i * M_i
    L         = -mean over counted rows of [ min(R_i A_i, clip(R_i, 1-eps, 1+eps) A_i) + ent_coef * entropy_i ]

Clip modes: ``product`` as above; ``own`` clips rho_i alone and multiplies by M_i; ``double`` (A2PO, arXiv 2302.06205)
clamps M_i to 1 +- others_clip_eps first, then as ``product``. Axes [T, E, N]: time, environments, agents.
"""

from typing import NamedTuple

from torch import Tensor

from kpg_fast.errors import UsageError, unknown_name
from kpg_fast.kernels.k_level_surrogate import ref

CLIP_MODES = ("product", "own", "double")

# What ``Surrogate.stats`` holds, each a mean over the counted rows except the last.
STATS = ("policy_loss", "entropy", "clip_fraction", "approx_kl", "ratio", "others_ratio", "count")


class Surrogate(NamedTuple):
    """Result of :func:`k_level_surrogate`."""

    loss: Tensor  # [], differentiable in the logits
    log_prob: Tensor  # [T, E, N] log pi_theta(a), no gradient
    stats: Tensor  # [7] as STATS names them, no gradient


def k_level_surrogate(
    logits: Tensor,
    avail: Tensor | None,
    action: Tensor,
    log_prob_old: Tensor,
    advantage: Tensor,
    mask: Tensor,
    log_m: Tensor | None = None,
    *,
    clip_eps: float,
    ent_coef: float = 0.0,
    clip_mode: str = "product",
    others_clip_eps: float | None = None,
) -> Surrogate:
    """Return loss, log-probabilities and statistics; the gradient to the logits is computed in the same pass.

    Args:
        logits: [T, E, N, A], the last axis contiguous, the others in any order (separate actors give a permuted view).
        avail: bool [T, E, N, A], or None where every action is available.
        action: int32 or int64 [T, E, N].
        log_prob_old: [T, E, N], of the behaviour policy.
        advantage: [T, E, N], already normalised.
        mask: bool or float weights [T, E, N]; rows of weight 0 (dead agents, invalid steps) are not read. The mean
            divides by the sum of the weights.
        log_m: log M_i [T, E, N] from :func:`others_log_ratio`; None at level 1 (M_i = 1).
        clip_eps: half-width of the clip.
        ent_coef: weight of the entropy.
        clip_mode: ``product``, ``own`` or ``double``.
        others_clip_eps: half-width for M_i in mode ``double``; None: the same as ``clip_eps``.

    Raises:
        UsageError: unknown clip mode, or clip_eps not positive.
    """
    if clip_mode not in CLIP_MODES:
        raise unknown_name("clip mode", clip_mode, CLIP_MODES)
    if clip_eps <= 0:
        raise UsageError(f"clip_eps must be positive, not {clip_eps}")
    eps_o = clip_eps if others_clip_eps is None else others_clip_eps
    return Surrogate(
        *ref.k_level_surrogate(
            logits, avail, action, log_prob_old, advantage, mask, log_m, clip_eps, ent_coef, clip_mode, eps_o
        )
    )


def others_log_ratio(log_prob: Tensor, log_prob_old: Tensor, alive: Tensor | None = None) -> Tensor:
    """Return log M_i [T, E, N], the sum over the other agents j != i of log_prob_j - log_prob_old_j. No gradient.

    Args:
        log_prob: [T, E, N] of the actions under the policies one level down.
        log_prob_old: [T, E, N] under the behaviour policy.
        alive: bool [T, E, N]; a dead agent's log-ratio counts as 0. None: everyone lives.
    """
    return ref.others_log_ratio(log_prob.detach(), log_prob_old, alive)
