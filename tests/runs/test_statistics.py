import numpy as np
import pytest
from scipy.stats import trim_mean

from kpg_fast.runs.statistics import iqm, stratified_bootstrap


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 5, 8, 13])
def test_iqm_is_the_quarter_trimmed_mean(runs: int) -> None:
    scores = np.random.default_rng(runs).normal(size=(3, runs))
    np.testing.assert_allclose(iqm(scores), trim_mean(scores, 0.25, axis=1), rtol=1e-14)


def test_iqm_leaves_the_outer_quarters_out() -> None:
    assert iqm(np.array([-1000.0, 1.0, 2.0, 1000.0])) == 1.5


def test_one_run_has_no_spread() -> None:
    estimate = stratified_bootstrap([np.array([[0.1, 0.5, 0.9]])])
    for values in (estimate.iqm, estimate.low, estimate.high):
        np.testing.assert_array_equal(values, [0.1, 0.5, 0.9])


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    experiments, runs = 300, 20
    estimate = [stratified_bootstrap([rng.normal(1.0, 1.0, (runs, 1))], seed=i) for i in range(experiments)]
    covered = np.mean([e.low[0] <= 1.0 <= e.high[0] for e in estimate])
    assert 0.88 < covered < 0.98  # the percentile bootstrap of 20 runs is a little short of 0.95


def test_strata_keep_their_weight() -> None:
    """Two environments with scores of their own and no spread within: resampling within strata finds no spread."""
    low, high = np.full((5, 1), 0.2), np.full((5, 1), 0.8)
    stratified = stratified_bootstrap([low, high])
    assert stratified.low[0] == stratified.high[0] == stratified.iqm[0] == pytest.approx(0.5)
    mixed = stratified_bootstrap([np.concatenate([low, high])])
    assert mixed.low[0] < 0.4
    assert mixed.high[0] > 0.6


def test_same_seed_same_interval() -> None:
    runs = np.random.default_rng(1).normal(size=(5, 4))
    one, same, other = (stratified_bootstrap([runs], seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.low, same.low)
    assert (one.low != other.low).any()


def test_no_runs_is_an_error() -> None:
    for strata in ([], [np.empty((0, 3))]):
        with pytest.raises(ValueError, match="at least one run"):
            stratified_bootstrap(strata)
