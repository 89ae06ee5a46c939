"""PPO's surrogate with the ratios of the other agents one level down (K-MAPPO), all agents in one pass.

    log rho_i = log pi_theta(a_i) - log pi_old(a_i)
    log M_i   = sum_{j != i} [log pi_{theta_j^(k-1)}(a_j) - log pi_old(a_j)]        no gradient; M_i = 1 at level 1
    R_i       = rho_i * M_i
    L         = -mean over counted rows of [ min(R_i A_i, clip(R_i, 1-eps, 1+eps) A_i) + ent_coef * entropy_i ]

Clip modes: ``product`` as above; ``own`` clips rho_i alone and multiplies by M_i; ``double`` (A2PO, arXiv 2302.06205)
clamps M_i to 1 +- others_clip_eps first, then as ``product``. Axes [T, E, N]: time, environments, agents.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kpg_fast.errors import UsageError, unknown_name
from kpg_fast.kernels.k_level_surrogate import cpu, ref
from kpg_fast.kernels.layout import check_dtypes, check_shape
from kpg_fast.kernels.registration import define_op

CLIP_MODES = ("product", "own", "double")

# What ``Surrogate.stats`` holds, each a mean over the counted rows except the last.
STATS = ("policy_loss", "entropy", "clip_fraction", "approx_kl", "ratio", "others_ratio", "count")


def _shapes(logits: Tensor, avail: Tensor | None, action: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    empty = logits.new_empty
    return empty(()), torch.empty_like(logits), empty(action.shape), empty(len(STATS))


_pass = define_op("k_level_surrogate", cpu.k_level_surrogate, _shapes)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, dlogits, log_prob, stats = output
    ctx.mark_non_differentiable(dlogits, log_prob, stats)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(dlogits)


def _gradient(ctx: Any, dloss: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    (dlogits,) = ctx.saved_tensors
    return dloss * dlogits, *(None,) * 11


_pass.register_autograd(_gradient, setup_context=_setup_context)


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
    clips: Tensor | None = None,
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
        clips: on a GPU, float32 [2] in its memory: the two half-widths, read in place of the numbers above.

    Raises:
        UsageError: unknown clip mode, clip_eps not positive, or shapes or types that do not fit.
        ValueError: an action outside 0 .. A-1 (on a GPU, which does not report back, its loss is NaN).

    Float64 logits take the definition in ``ref.py`` (for tests).
    """
    _check_clip(clip_eps, clip_mode)
    check_shape("action", action, tuple(logits.shape[:-1]))
    tensors = (logits, log_prob_old.detach(), advantage.detach(), None if log_m is None else log_m.detach())
    double = check_dtypes("k_level_surrogate", *tensors) == torch.float64
    logits, log_prob_old, advantage, log_m = tensors
    eps_o = clip_eps if others_clip_eps is None else others_clip_eps
    rows = (action, log_prob_old, advantage, mask, log_m)
    if double:
        return Surrogate(*ref.k_level_surrogate(logits, avail, *rows, clip_eps, ent_coef, clip_mode, eps_o))
    loss, _, log_prob, stats = _pass(logits, avail, *rows, clip_eps, ent_coef, clip_mode, eps_o, clips)
    return Surrogate(loss, log_prob, stats)


def _check_clip(clip_eps: float, clip_mode: str) -> None:
    if clip_mode not in CLIP_MODES:
        raise unknown_name("clip mode", clip_mode, CLIP_MODES)
    if clip_eps <= 0:
        raise UsageError(f"clip_eps must be positive, not {clip_eps}")


def surrogate_of_log_prob(
    log_prob: Tensor,
    entropy: Tensor,
    log_prob_old: Tensor,
    advantage: Tensor,
    mask: Tensor,
    log_m: Tensor | None = None,
    *,
    clip_eps: float,
    ent_coef: float = 0.0,
    clip_mode: str = "product",
    others_clip_eps: float | None = None,
    clips: Tensor | None = None,
) -> Surrogate:
    """:func:`k_level_surrogate` of policies that are not categorical, in plain torch.

    Args:
        log_prob: log pi_theta(a) [T, E, N], differentiable.
        entropy: [T, E, N], differentiable.
        log_prob_old: see :func:`k_level_surrogate`, and so for the rest.
        advantage: the same.
        mask: the same.
        log_m: the same.
        clip_eps: the same.
        ent_coef: the same.
        clip_mode: the same.
        others_clip_eps: the same.
        clips: the same.

    Raises:
        UsageError: unknown clip mode, clip_eps not positive, or types that do not fit.
    """
    _check_clip(clip_eps, clip_mode)
    check_dtypes("surrogate_of_log_prob", log_prob, entropy, log_prob_old, advantage, log_m)
    rows = (log_prob_old.detach(), advantage.detach(), mask, log_m)
    eps: Any = (clip_eps, clip_eps if others_clip_eps is None else others_clip_eps) if clips is None else clips
    return Surrogate(*ref.surrogate(log_prob, entropy, *rows, eps[0], ent_coef, clip_mode, eps[1]))


def _others_shape(log_prob: Tensor, log_prob_old: Tensor, alive: Tensor | None) -> Tensor:
    return log_prob.new_empty(log_prob.shape)


_others_log_ratio = define_op("others_log_ratio", cpu.others_log_ratio, _others_shape)


def others_log_ratio(log_prob: Tensor, log_prob_old: Tensor, alive: Tensor | None = None) -> Tensor:
    """Return log M_i [T, E, N], the sum over the other agents j != i of log_prob_j - log_prob_old_j. No gradient.

    Args:
        log_prob: [T, E, N] of the actions under the policies one level down.
        log_prob_old: [T, E, N] under the behaviour policy.
        alive: bool [T, E, N]; a dead agent's log-ratio counts as 0. None: everyone lives.
    """
    if check_dtypes("others_log_ratio", log_prob, log_prob_old) == torch.float64:
        return ref.others_log_ratio(log_prob.detach(), log_prob_old, alive)
    log_m: Tensor = _others_log_ratio(log_prob.detach(), log_prob_old, alive)
    return log_m
