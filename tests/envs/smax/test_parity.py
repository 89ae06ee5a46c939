"""The rules against JaxMARL 0.2.0, step by step: golden traces, and the installed package with another seed."""

import pytest

from kpg_fast.envs.smax.scenario import NAMED
from tests.envs.smax.replay import TOLERANCE, TRACES, load, replay


def check(trace):
    worst, thrown = replay(trace)
    print(worst, f"{thrown} steps thrown by a rounding")
    assert thrown <= 0.01 * trace["fresh"].size
    for part, error in worst.items():
        assert error <= TOLERANCE[part], (part, error)


def test_every_scenario_and_both_enemy_modes_have_traces():
    assert set(TRACES) >= set(NAMED)
    options = [str(load(name)["options"]) for name in NAMED]
    assert any('"random"' in text for text in options)
    assert any('"closest"' in text for text in options)
    for name in NAMED:
        assert load(name)["fresh"].size >= 200


@pytest.mark.parametrize("name", TRACES)
def test_golden_trace(name):
    check(load(name))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"scenario": "3s_vs_5z", "attack_mode": "random"}])
def test_installed_jaxmarl(options):
    pytest.importorskip("jaxmarl", reason="JaxMARL is not installed")
    from tests.envs.smax.record_traces import record

    check(record(options, seed=4321, steps=120, games=8))
