"""Interquartile mean and its stratified-bootstrap interval (Agarwal et al. 2021, arXiv 2108.13264)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_REPETITIONS = 2000


@dataclass(frozen=True)
class Estimate:
    """An interquartile mean with its interval, each [P] for P points of a curve."""

    iqm: Array
    low: Array
    high: Array


def iqm(scores: Array) -> Array:
    """Interquartile mean over the last axis: the mean of the middle half.

    As in Agarwal et al. a quarter of the values, rounded down, is left out at either end, so that of fewer than four
    values it is the mean.

    Args:
        scores: float [..., R].

    Returns:
        float [...].
    """
    cut = scores.shape[-1] // 4
    ordered = np.sort(scores, axis=-1)
    middle: Array = ordered[..., cut : scores.shape[-1] - cut].mean(axis=-1)
    return middle


def stratified_bootstrap(strata: Sequence[Array], confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Interquartile mean over all runs of all strata with a percentile-bootstrap interval.

    Runs are resampled with replacement within each stratum (environment), so that every environment keeps its weight.

    Args:
        strata: for each environment its runs' curves, float [R_s, P]; R_s may differ, P may not.
        confidence: probability that the interval is to cover.
        seed: of the resampling; the same seed gives the same interval.

    Raises:
        ValueError: no stratum, or one without a run.
    """
    if not strata or any(len(runs) == 0 for runs in strata):
        raise ValueError("every stratum needs at least one run")
    pooled = np.concatenate(strata).T
    rng = np.random.default_rng(seed)
    chosen = [rng.integers(len(runs), size=(_REPETITIONS, len(runs))) for runs in strata]
    low, high = np.empty(len(pooled)), np.empty(len(pooled))
    edges = 50 * (1 - confidence), 100 - 50 * (1 - confidence)
    for point in range(len(pooled)):  # a point at a time: memory stays at repetitions x runs
        resampled = [runs[:, point][index] for runs, index in zip(strata, chosen, strict=True)]
        low[point], high[point] = np.percentile(iqm(np.concatenate(resampled, axis=1)), edges)
    return Estimate(iqm(pooled), low, high)
