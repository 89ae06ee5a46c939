"""Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011), the generator of Triton's ``tl.randint4x``.

A draw is a function of (seed; environment, its clock, unit, purpose) alone, so neither the number of threads, the
batch, the device nor the order of the draws can change an episode.
"""

import numpy as np

from kpg_fast.envs.smax.compiled import Scalar, device

_ROUNDS = 10
_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_HIGH = np.uint64(32)
_MANTISSA = np.uint32(8)
_ULP = np.float32(2.0**-24)


@device
def philox(seed: Scalar, c0: Scalar, c1: Scalar, c2: Scalar, c3: Scalar) -> Scalar:
    """Four uint32 words for a 64-bit seed and four counter words."""
    k0, k1 = np.uint32(seed), np.uint32(np.uint64(seed) >> _HIGH)
    w0, w1, w2, w3 = np.uint32(c0), np.uint32(c1), np.uint32(c2), np.uint32(c3)
    for _ in range(_ROUNDS):
        p0 = _MULTIPLIER_0 * np.uint64(w0)
        p1 = _MULTIPLIER_1 * np.uint64(w2)
        w0 = np.uint32(np.uint32(p1 >> _HIGH) ^ w1 ^ k0)
        w2 = np.uint32(np.uint32(p0 >> _HIGH) ^ w3 ^ k1)
        w1, w3 = np.uint32(p1), np.uint32(p0)
        k0, k1 = np.uint32(k0 + _WEYL_0), np.uint32(k1 + _WEYL_1)
    return w0, w1, w2, w3


@device
def uniform(word: Scalar) -> Scalar:
    """A float32 in [0, 1) from the upper 24 bits of a word."""
    return np.float32(word >> _MANTISSA) * _ULP
