"""Gaussian policy with a diagonal covariance, for continuous actions: log-probability, entropy, counter-based sampling.

    log pi(a) = sum over d of -((a_d - mu_d) / sigma_d)^2 / 2 - log sigma_d - log(2 pi) / 2
    H         = sum over d of log sigma_d + (1 + log(2 pi)) / 2

over the actuators d that move anything; padded ones count for nothing. Moments [..., 2A] are mu and behind it
log sigma. All but the noise is plain torch: on HalfCheetah-2x3 a tenth of an update, two thirds of which are products.
"""

import torch
from torch import Tensor

from kpg_fast.kernels.gaussian_policy import cpu, ref
from kpg_fast.kernels.layout import check_dtypes, check_shape
from kpg_fast.kernels.registration import define_op


def _noise_shape(seed: Tensor, row: Tensor, step: Tensor, stream: int, size: int) -> Tensor:
    return row.new_empty((*row.shape, size), dtype=torch.float32)


_standard_normal = define_op("standard_normal", cpu.standard_normal, _noise_shape)


def log_prob_entropy(moments: Tensor, action: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(log_prob, entropy)`` [...] of the given actions; differentiable in the moments.

    Args:
        moments: [..., 2A].
        action: [..., A].
        moving: bool, broadcasts to [..., A]: which actuators count.

    Raises:
        UsageError: shapes or types that do not fit.
    """
    _check(moments, action)
    return ref.log_prob_entropy(moments, action, moving)


def log_prob_difference(moments: Tensor, dmoments: Tensor, action: Tensor, moving: Tensor) -> Tensor:
    """Return log pi_{theta_k}(a) - log pi_theta(a) [...] for moments that change by ``dmoments``; no gradient.

    Every rounding is relative to the change; see :mod:`kpg_fast.kernels.lookahead`.

    Args:
        moments: at theta [..., 2A].
        dmoments: their change [..., 2A].
        action: [..., A].
        moving: bool, broadcasts to [..., A].

    Raises:
        UsageError: shapes or types that do not fit.
    """
    _check(moments, action)
    check_shape("dmoments", dmoments, tuple(moments.shape))
    return ref.log_prob_difference(moments.detach(), dmoments, action, moving)


def _check(moments: Tensor, action: Tensor) -> None:
    check_dtypes("gaussian_policy", moments, action)
    check_shape("moments", moments, (*action.shape[:-1], 2 * action.shape[-1]))


def sample(
    moments: Tensor,
    moving: Tensor,
    seed: int | Tensor,
    row: Tensor,
    step: int | Tensor,
    stream: int = 0,
    greedy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return ``(action, log_prob)``, [..., A] and [...]; an actuator that does not count gets 0. No gradient.

    Args:
        moments: [..., 2A].
        moving: bool, broadcasts to [..., A].
        seed: see :func:`standard_normal`.
        row: the same.
        step: the same.
        stream: the same.
        greedy: take the mean and use no random number.
    """
    mean, log_std = moments.detach().chunk(2, -1)
    action = mean
    if not greedy:
        shape, at = mean.shape[:-1], moments.device
        seed, row, step = (torch.as_tensor(a, device=at).long().expand(shape) for a in (seed, row, step))
        action = mean + log_std.exp() * standard_normal(seed, row, step, stream, mean.shape[-1]).to(mean.dtype)
    action = action * moving
    return action, ref.log_prob_entropy(moments.detach(), action, moving)[0]


def standard_normal(seed: Tensor, row: Tensor, step: Tensor, stream: int, size: int) -> Tensor:
    """Return normal numbers, float32 [..., size].

    Numbers 4b .. 4b + 3 are made of the four words of Philox4x32-10 under the key ``seed`` and the counter (row,
    stream + b, low half of step, high half of step), so they depend on these alone: not on the batch a row sits in, the
    number of threads or, but for the last digit, the device.

    Args:
        seed: int64 [...].
        row: int64 [...] in 0 .. 2^32-1: who draws.
        step: int64 [...]: when.
        stream: 0 .. 2^32-1: what for.
        size: numbers a row.

    Raises:
        UsageError: shapes that do not fit.
    """
    for name, counter in (("seed", seed), ("step", step)):
        check_shape(name, counter, tuple(row.shape))
    noise: Tensor = _standard_normal(seed, row, step, stream, size)
    return noise
