"""SMAX on the card against JaxMARL's recorded games; simulated in tests/envs/smax."""

import pytest
import torch

from kpg_fast.envs.smax import env
from tests.envs.smax.replay import TOLERANCE, TRACES, load, replay

if not torch.cuda.is_available():
    pytest.skip("needs a card; simulated in tests/envs/smax/test_cuda.py", allow_module_level=True)
cuda = pytest.importorskip("kpg_fast.envs.smax.cuda", reason="numba-cuda is not installed (extra cuda)")


@pytest.mark.parametrize("name", TRACES)
def test_golden_trace(monkeypatch, name):
    monkeypatch.setattr(env, "cpu", cuda)
    worst, thrown = replay(load(name))
    assert thrown <= 0.01 * load(name)["fresh"].size
    # positions may be off by 1e-5, and what is seen of them is divided by a sight of 8 to 10
    allowed = TOLERANCE | {"obs": 3e-6, "state": 3e-6}
    for part, error in worst.items():
        assert error <= allowed[part], (part, error)
