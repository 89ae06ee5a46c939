"""SMAX on the card: in a graph beside torch, and the CPU's games from the same seeds; simulated in tests/envs/smax."""

import numpy as np
import pytest
import torch

from kpg_fast.envs import make
from kpg_fast.envs.smax import env
from kpg_fast.graphs import Replayed, cuda_graph
from kpg_fast.rollout import Rollout

if not torch.cuda.is_available():
    pytest.skip("needs a card; simulated in tests/envs/smax/test_cuda.py", allow_module_level=True)
cuda = pytest.importorskip("kpg_fast.envs.smax.cuda", reason="numba-cuda is not installed (extra cuda)")
from tests.envs.smax.cuda_simulated import PLAYED, play  # noqa: E402  (it needs numba-cuda)


def test_steps_are_captured_into_a_graph_beside_torch():
    """As a rollout steps: games and memory on the card, torch's own work between two steps."""
    device, steps = torch.device("cuda"), 2

    def begin():
        games = make("smax/2s3z", 64, seed=3, device="cuda")
        rollout = Rollout.allocate(games.spec, steps, device)
        rollout.begin(games)
        return games, rollout

    def step(games, rollout):
        rollout.avail_actions[0].copy_(rollout.avail_actions[steps])
        for t in range(steps):
            rollout.action[t].copy_(rollout.avail_actions[t].int().argmax(-1))
            games.step(rollout.action[t], rollout.steps[t])

    (games, rollout), (captured_games, captured_rollout) = begin(), begin()
    replayed = Replayed(lambda: step(captured_games, captured_rollout), cuda_graph)
    for _ in range(20):
        step(games, rollout)
        replayed()
    torch.cuda.synchronize()
    for name, value in games.state.items():
        assert torch.equal(value, captured_games.state[name]), name
    for name in ("obs", "state", "avail_actions", "alive", "reward", "terminated", "truncated", "won"):
        assert torch.equal(getattr(rollout, name), getattr(captured_rollout, name)), name


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
