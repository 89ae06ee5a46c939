"""Definitions of the masked categorical policy in plain torch and numpy."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# What JaxMARL subtracts from the logit of an action that is not available; in float32 its probability is exactly 0.
UNAVAILABLE = 1e10


def masked_log_softmax(logits: Tensor, avail: Tensor | None) -> Tensor:
    """Log-probabilities [..., A]; an unavailable action's is about -1e10, a row with no available action is all 0."""
    if avail is None:
        return torch.log_softmax(logits, dim=-1)
    log_p = torch.log_softmax(logits.masked_fill(~avail, -UNAVAILABLE), dim=-1)
    return torch.where(avail.any(dim=-1, keepdim=True), log_p, torch.zeros_like(log_p))


def log_prob_entropy(logits: Tensor, avail: Tensor | None, action: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`kpg_fast.kernels.policy.log_prob_entropy`."""
    log_p = masked_log_softmax(logits, avail)
    log_prob = log_p.gather(-1, action.long().unsqueeze(-1)).squeeze(-1)
    plogp = log_p.exp() * log_p
    if avail is not None:
        plogp = torch.where(avail, plogp, torch.zeros_like(plogp))
    return log_prob, -plogp.sum(dim=-1)


def philox(key: int, counter: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Philox4x32-10 (Salmon et al., SC 2011): four uniform 32-bit words for each ``counter`` [..., 4] under ``key``."""
    c = [counter[..., i].astype(np.uint64) for i in range(4)]
    k0, k1, mask = key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF, np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0),
            p1 & mask,
            (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1),
            p0 & mask,
        ]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=-1).astype(np.uint32)


def philox_words(seed: Tensor, row: Tensor, step: Tensor, stream: int) -> NDArray[np.uint32]:
    """Four words for each (seed, row, step), all int64 of one shape: [..., 4]."""
    seeds, rows, steps = (a.reshape(-1).cpu().numpy().astype(np.uint64) for a in (seed, row, step))
    low, high = np.uint64(0xFFFFFFFF), np.uint64(32)
    counter = np.stack([rows & low, np.full_like(rows, stream), steps & low, steps >> high], axis=-1).astype(np.uint32)
    words = np.empty((*rows.shape, 4), np.uint32)
    for s in np.unique(seeds):
        words[seeds == s] = philox(int(s), counter[seeds == s])
    return words.reshape(*row.shape, 4)


def uniform(seed: Tensor, row: Tensor, step: Tensor, stream: int) -> Tensor:
    """One float32 uniform in [0, 1) for each (seed, row, step), all int64 of one shape: the upper 24 bits of a word."""
    word = philox_words(seed, row, step, stream)[..., 0]
    return torch.from_numpy((word >> np.uint32(8)).astype(np.float32) * np.float32(2**-24))


def sample(
    logits: Tensor, avail: Tensor | None, seed: Tensor, row: Tensor, step: Tensor, stream: int, greedy: bool
) -> tuple[Tensor, Tensor]:
    """See :func:`kpg_fast.kernels.policy.sample`; the first available action whose cumulated weight exceeds u."""
    log_p = masked_log_softmax(logits, avail)
    usable = torch.ones_like(log_p, dtype=torch.bool) if avail is None else avail
    if greedy:
        action = torch.where(usable, log_p, torch.full_like(log_p, -torch.inf)).argmax(dim=-1)
    else:
        cumulated = torch.where(usable, log_p.exp(), torch.zeros_like(log_p)).cumsum(dim=-1)
        u = uniform(seed, row, step, stream).to(logits) * cumulated[..., -1]
        reached = usable & (cumulated > u.unsqueeze(-1))
        # rounding may leave u at the very total: then the last available action
        last = (usable * torch.arange(1, usable.shape[-1] + 1, device=logits.device)).argmax(dim=-1)
        action = torch.where(reached.any(dim=-1), reached.int().argmax(dim=-1), last)
    return action.int(), log_p.gather(-1, action.unsqueeze(-1)).squeeze(-1)
