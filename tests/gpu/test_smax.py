"""SMAX on the card: golden traces, and the CPU's games from the same seeds; simulated in tests/envs/smax."""

import numpy as np
import pytest
import torch

from kpg_fast.envs.smax import env
from tests.envs.smax.cuda_simulated import PLAYED, play
from tests.envs.smax.replay import TOLERANCE, TRACES, load, replay

if not torch.cuda.is_available():
    pytest.skip("needs a card; simulated in tests/envs/smax/test_cuda.py", allow_module_level=True)
cuda = pytest.importorskip("kpg_fast.envs.smax.cuda", reason="numba-cuda is not installed (extra cuda)")


@pytest.mark.parametrize("name", TRACES)
def test_golden_trace(monkeypatch, name):
    monkeypatch.setattr(env, "cpu", cuda)
    worst, thrown = replay(load(name))
    assert thrown <= 0.01 * load(name)["fresh"].size
    for part, error in worst.items():
        assert error <= TOLERANCE[part], (part, error)


@pytest.mark.parametrize("case", PLAYED)
def test_seeds_make_the_cpus_games(monkeypatch, case):
    name, options = PLAYED[case]
    expected = play(name, steps=8, **options)
    monkeypatch.setattr(env, "cpu", cuda)
    first, again = play(name, steps=8, **options), play(name, steps=8, **options)
    for key, value in expected.items():
        np.testing.assert_array_equal(first[key], again[key], err_msg=key)
        tolerance = 1e-5 if value.dtype.kind == "f" else 0
        np.testing.assert_allclose(first[key], value, rtol=0, atol=tolerance, err_msg=key)
