"""SMAX on the card: golden traces, and the CPU's games from the same seeds; simulated in tests/envs/smax."""

import numpy as np
import pytest
import torch

from kpg_fast.envs import StepArrays, make
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


def test_a_step_is_captured_into_a_graph_of_torch():
    engine = make("smax/2s3z", 64, seed=3)
    out = StepArrays.empty(engine.spec)
    engine.reset(out)
    outcome = (out.reward, engine.enemy_reward, out.terminated, out.truncated, out.won, out.valid)
    parts = (engine._games, (engine._settings, engine._kinds), (out.obs, out.state, out.avail_actions, out.alive))
    rest = (outcome, (out.last_obs, out.last_state), engine._not_given, (engine._no_vectors,))

    def on_card():
        return [tuple(torch.from_numpy(np.copy(a)).cuda() for a in part) for part in (*parts, *rest)]

    def step(arrays):
        games, (settings, kinds), next_, outcome, last, given, (vectors,) = arrays
        numbers = torch.full((64, 5), 1, dtype=torch.int32, device="cuda")
        stream = torch.cuda.current_stream().cuda_stream
        cuda.step(games, settings, engine._seed, kinds, (numbers, vectors), given, None, next_, outcome, last, stream)

    eager, captured = on_card(), on_card()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step(eager)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        step(captured)
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    for part, other in zip(eager, captured, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(part, other, strict=True))
