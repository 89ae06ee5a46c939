"""Definitions of the Gaussian policy in plain torch and numpy, any dtype; differentiable in the moments."""

from math import log, pi

import numpy as np
import torch
from torch import Tensor

from kpg_fast.kernels.policy.ref import philox_words

_LOG_TWO_PI = log(2 * pi)


def log_prob_entropy(moments: Tensor, action: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`kpg_fast.kernels.gaussian_policy.log_prob_entropy`."""
    mean, log_std = moments.chunk(2, -1)
    weight = moving.to(moments.dtype)
    z = (action.detach() - mean) * torch.exp(-log_std)
    log_prob = -((0.5 * z.square() + log_std + 0.5 * _LOG_TWO_PI) * weight).sum(-1)
    return log_prob, ((log_std + 0.5 * (1 + _LOG_TWO_PI)) * weight).sum(-1)


def log_prob_difference(moments: Tensor, dmoments: Tensor, action: Tensor, moving: Tensor) -> Tensor:
    """See :func:`kpg_fast.kernels.gaussian_policy.log_prob_difference`."""
    (mean, log_std), (dmean, dlog_std) = moments.chunk(2, -1), dmoments.chunk(2, -1)
    inverse = torch.exp(-log_std)
    z = (action - mean) * inverse
    dz = z * torch.expm1(-dlog_std) - dmean * inverse * torch.exp(-dlog_std)
    return -((dz * (z + 0.5 * dz) + dlog_std) * moving.to(moments.dtype)).sum(-1)


def standard_normal(seed: Tensor, row: Tensor, step: Tensor, stream: int, size: int) -> Tensor:
    """See :func:`kpg_fast.kernels.gaussian_policy.standard_normal`; Box and Muller's transform."""
    blocks = [philox_words(seed, row, step, stream + block) for block in range(-(-size // 4))]
    words = np.concatenate(blocks, -1)
    words = words.reshape(*words.shape[:-1], -1, 2) >> np.uint32(8)  # pairs
    radius = np.sqrt(-2 * np.log((words[..., 0] + 1.0) * 2.0**-24))
    angle = 2 * np.pi * (words[..., 1] * 2.0**-24)
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).reshape(*words.shape[:-2], -1)
    return torch.from_numpy(normal[..., :size].astype(np.float32))
