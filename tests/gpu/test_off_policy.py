"""K-MADDPG and K-FACMAC on a card: as on the CPU, the same twice, the same with graphs as without, resumed across.

Interpreted, the card is the CPU with everything else as on a card: nothing waits, rates and samples come from memory,
updates are captured by a recorder that stands for a CUDA graph (replaying.py).
"""

import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch

from kpg_fast.config import Config
from kpg_fast.graphs import cuda_graph
from kpg_fast.off_policy.trainer import OffPolicyTrainer
from kpg_fast.place import CPU, Place
from tests.gpu import replaying

SMALL = {
    "num_envs": 2, "num_steps": 3, "batch_size": 5, "buffer_size": 9, "warmup": 4, "start_steps": 2, "hidden": 6,
    "mixer_hidden": 3, "hyper_hidden": 4, "total_steps": 6 * 50,
}  # fmt: skip
CALLED = {
    "mlp": ("forward", "deltas", "gradient"),
    "hypernetwork": ("forward", "backward"),
    "mixer": ("mix", "mix_backward", "mix_one_live"),
    "level_step": ("level_step",),
}
"""What is called of the kernels that are no ops in registration.py's way."""
OPS = ("linear", "gru")


@pytest.fixture
def card(device, monkeypatch):
    """Makes a card, or what stands for one: the CPU, whose optimiser reads its rates from memory.

    With ``kernels`` its other operations are the card's too. What the CPU is to compute in its own way comes before.
    """

    def begin(kernels=False):
        if device.type == "cpu":
            for kernel, names in CALLED.items():
                stand_in(monkeypatch, kernel, "gpu" if kernels or kernel == "level_step" else "cpu", names)
            for op in OPS if kernels else ():
                gpu = import_module(f"kpg_fast.kernels.{op}.gpu")
                monkeypatch.setitem(sys.modules, f"kpg_fast.kernels.{op}.cpu", gpu)
        return device

    return begin


def stand_in(monkeypatch, kernel, file, names):
    module = import_module(f"kpg_fast.kernels.{kernel}.{file}")
    if kernel != "level_step":  # an op of torch, which is recorded as it is
        module = SimpleNamespace(**{name: replaying.outside(getattr(module, name)) for name in names})
    monkeypatch.setattr(f"kpg_fast.kernels.{kernel}.cpu", module)


def trainer_for(device, graphs=False, algorithm="k-facmac", env="toy/meetup", **values):
    """On the CPU in its own way, or on a device in a card's."""
    config = Config.make(algorithm, env, **(SMALL | {"levels": 2} | values))
    if device is None:
        return OffPolicyTrainer(config, place=CPU)
    on_card = device.type == "cuda"
    place = Place(device, queued=True, graphs=graphs, hosted=True)
    trainer = OffPolicyTrainer(config, place=place, capture=cuda_graph if on_card else replaying.capture)
    if not on_card:
        for learner in trainer.algorithm.learners:
            learner.store.on_host = False  # copies and targets by torch, which the recorder sees
    return trainer


def after(trainer, updates):
    """Metrics but for times, and all that a checkpoint keeps, on the CPU."""
    metrics = [trainer.update() for _ in range(updates)]
    timeless = [{n: v for n, v in m.items() if "sps" not in n and "time" not in n} for m in metrics]
    return timeless, {name: value.cpu().clone() for name, value in trainer.tensors().items()}


def assert_same(one, other):
    assert repr(one[0]) == repr(other[0])
    for name, tensor in one[1].items():
        assert tensor.numpy().tobytes() == other[1][name].numpy().tobytes(), name


def assert_close(plain, ours):
    for name, tensor in plain[1].items():
        torch.testing.assert_close(ours[1][name], tensor, rtol=1e-3, atol=2e-5, msg=name)
    for before, now in zip(plain[0], ours[0], strict=True):
        assert before.keys() == now.keys()
        for name, value in before.items():
            assert now[name] == pytest.approx(value, rel=1e-3, abs=1e-4, nan_ok=True), name


CONTINUOUS, DISCRETE = {"actor_reg": 0.01}, {"env": "toy/climbing", "agent_id": True}
EPISODES = {"env": "toy/climbing", "preset": "smac", "recurrent": True, "levels": 3}
MATCHED = [
    {**CONTINUOUS, "levels": 1},
    {**CONTINUOUS, "levels": 2, "shared_actor": False, "state_norm": True},
    {**CONTINUOUS, "levels": 3, "shared_critic": False, "mixer": "nonmonotonic"},
    {**DISCRETE, "levels": 1, "shared_actor": False},
    {**DISCRETE, "levels": 3, "target_interval": 2},
    {**CONTINUOUS, "algorithm": "k-maddpg", "levels": 1, "shared_critic": True},
    {**CONTINUOUS, "algorithm": "k-maddpg", "levels": 3, "shared_actor": False, "state_norm": True},
    {**DISCRETE, "algorithm": "k-maddpg", "levels": 2, "level1_others": "current"},
    EPISODES,
    EPISODES | {"algorithm": "k-maddpg", "shared_actor": False, "levels": 2},
]


@pytest.mark.parametrize("values", MATCHED, ids=str)
def test_learns_as_on_the_cpu(card, values):
    # RMSProp would turn rounding into whole steps
    values = values | {"optimizer": "sgd", "lr": 5.0, "critic_lr": 0.5, "warmup": 6}
    before = {name: value.clone() for name, value in trainer_for(None, **values).tensors().items()}
    plain = after(trainer_for(None, **values), 1)
    ours = after(trainer_for(card(kernels=True), **values), 1)
    assert ours[0][0]["learned"] == 2
    assert_close(plain, ours)
    for name in ("actor/theta", "critic/theta"):
        moved, difference = plain[1][name] - before[name], ours[1][name] - plain[1][name]
        assert moved.norm() > 1e-3
        assert difference.norm() < 1e-3 * moved.norm(), name


@pytest.mark.parametrize("values", [{"rmsprop_correction": True}, {"optimizer": "adam", "critic_lr": 0.003}], ids=str)
def test_steps_take_the_rates_of_the_cpu(card, values):
    plain = after(trainer_for(None, **values), 2)
    assert_close(plain, after(trainer_for(card(), debug_drift=True, **values), 2))


def test_a_run_goes_from_the_cpu_to_a_card_and_back(card):
    values = {"rmsprop_correction": True, "env": "toy/climbing"}
    plain = trainer_for(None, **values)
    after(plain, 2)
    on_card = trainer_for(card(), graphs=True, **values)
    on_card.restore(plain.tensors(), plain.counters())
    expected, ours = after(plain, 2), after(on_card, 2)  # captured with the counters of the run before
    assert_close(expected, ours)
    assert on_card.counters() == plain.counters()
    plain.restore(ours[1], on_card.counters())
    assert_close(after(on_card, 1), after(plain, 1))
    assert on_card.evaluate(2) == pytest.approx(plain.evaluate(2), abs=1e-4)


REPLAYED = [
    {"rmsprop_correction": True, "state_norm": True, "shared_actor": False},
    {"optimizer": "adam", "env": "toy/climbing", "target_interval": 3},
    {"algorithm": "k-maddpg", "levels": 3, "optimizer": "adam", "env": "toy/climbing"},
    {"algorithm": "k-maddpg", "levels": 1},
    EPISODES | {"warmup": 6},
]


@pytest.mark.parametrize("values", REPLAYED, ids=str)
def test_graphs_give_the_numbers_of_single_operations(card, values):
    device = card()
    eager = after(trainer_for(device, **values), 4)
    assert eager[0][-1]["learned"] == 6
    assert_same(eager, after(trainer_for(device, graphs=True, **values), 4))
