"""Training on a card: as on the CPU, the same twice, the same with graphs as without, seeds as one batch.

Interpreted, the card is the CPU with everything else as on a card: nothing waits, rates come from memory, work is
captured by a recorder that stands for a CUDA graph (replaying.py). SMAX is then the CPU's; tests/envs/smax has its own.
"""

import sys
from importlib import import_module

import pytest
import torch

from kpg_fast.config import Config
from kpg_fast.envs import make_seeds
from kpg_fast.graphs import cuda_graph
from kpg_fast.k_mappo_trainer import KMappoTrainer
from kpg_fast.place import CPU, Place
from tests.gpu import replaying
from tests.gpu.test_update import OPS

SMALL = {"num_envs": 4, "num_steps": 5, "num_minibatches": 2, "num_epochs": 2, "hidden": 6, "total_steps": 20 * 40}


@pytest.fixture
def place(device, monkeypatch):
    """A card, or what stands for one."""
    if device.type == "cpu":
        level_step = import_module("kpg_fast.kernels.level_step.gpu")  # the CPU's reads no rates from memory
        monkeypatch.setattr("kpg_fast.kernels.level_step.cpu", level_step)
        for op in ("k_level_surrogate", "value_loss"):  # nor clip ranges
            monkeypatch.setattr(f"kpg_fast.kernels.{op}.cpu.{op}", reading_clips(op))
        monkeypatch.setattr("kpg_fast.k_mappo_trainer.make_seeds", on_cpu)
    return Place(device, queued=True)


def reading_clips(op):
    """The CPU's op, or the interpreted one where clip ranges, its last argument, are in memory."""
    on_cpu, on_gpu = (getattr(import_module(f"kpg_fast.kernels.{op}.{file}"), op) for file in ("cpu", "gpu"))
    return lambda *args: (on_cpu if args[-1] is None else on_gpu)(*args)


def on_cpu(name, num_envs, seeds, card, **options):
    env = make_seeds(name, num_envs, seeds, None, **options)
    env.step = replaying.outside(env.step)
    return env


def trainer_for(place, seeds=None, graphs=False, env="smax/3m", **values):
    config = Config.make("k-mappo", env, **(SMALL | {"levels": 2} | values))
    on_card = place.device.type == "cuda"
    trainer = KMappoTrainer(
        config,
        seeds=seeds,
        place=Place(place.device, place.queued, graphs, hosted=place.queued and not env.startswith("smax/")),
        capture=cuda_graph if on_card else replaying.capture,
    )
    if graphs and not on_card:
        for part in (trainer.actor, trainer.critic):
            part.learner.store.on_host = False  # copies by torch, which the recorder sees
    return trainer


def after(trainer, updates):
    """Metrics of every seed and update, and all that a checkpoint keeps, on the CPU."""
    metrics = [trainer.update_all() for _ in range(updates)]
    timeless = [{n: repr(v) for n, v in m.items() if "sps" not in n and "time" not in n} for u in metrics for m in u]
    tensors = [{n: t.cpu() for n, t in trainer.tensors(i).items()} for i in range(len(trainer.seeds))]
    return timeless, tensors, trainer.counters()


def assert_same(one, other):
    assert one[0] == other[0]
    assert one[2] == other[2]
    for ours, theirs in zip(one[1], other[1], strict=True):
        for name, tensor in ours.items():
            assert tensor.numpy().tobytes() == theirs[name].numpy().tobytes(), name


VALUES = [
    {"env_options": ("max_steps=2",)},
    {"shared_actor": False, "precision": "mixed-lookahead", "value_norm": True, "death_mask": True, "chunk_length": 5},
]


@pytest.mark.parametrize("values", VALUES, ids=["shared", "separate"])
@pytest.mark.parametrize("seeds", [(3,), (3, 8)], ids=["one", "batch"])
def test_graphs_give_the_numbers_of_single_operations(place, values, seeds):
    eager = after(trainer_for(place, seeds, **values), 4)
    assert_same(eager, after(trainer_for(place, seeds, graphs=True, **values), 4))
    if place.device.type == "cuda":
        assert_same(eager, after(trainer_for(place, seeds, **values), 4))


@pytest.mark.parametrize("values", VALUES, ids=["shared", "separate"])
def test_learns_as_on_the_cpu(device, place, monkeypatch, values):
    values = values | {"optimizer": "sgd", "lr": 0.5}  # Adam would turn rounding into whole steps
    with monkeypatch.context() as patch:
        patch.setattr("kpg_fast.k_mappo_trainer.make_seeds", make_seeds)
        plain = after(trainer_for(CPU, **values), 1)
    if device.type == "cpu":
        for op in OPS:
            monkeypatch.setitem(sys.modules, f"kpg_fast.kernels.{op}.cpu", import_module(f"kpg_fast.kernels.{op}.gpu"))
    on_card = after(trainer_for(place, **values), 1)
    assert plain[2] == on_card[2]
    for name, tensor in plain[1][0].items():
        if name in ("env/floats", "env/ints"):  # scratch rows among them, which each driver fills as it needs
            continue
        torch.testing.assert_close(on_card[1][0][name], tensor, rtol=1e-3, atol=2e-5, msg=name)
    for name, value in plain[0][0].items():
        assert float(on_card[0][0][name]) == pytest.approx(float(value), rel=1e-3, abs=1e-4, nan_ok=True), name


@pytest.mark.parametrize("values", [{}, {"env": "mamujoco/HalfCheetah-2x3", "clip_mode": "double"}], ids=str)
def test_a_captured_iteration_takes_new_clip_ranges(place, values):
    if values:
        pytest.importorskip("mujoco", reason="pip install mujoco-core gymnasium")

    def with_ranges(clip_ranges, **how):
        trainer = trainer_for(place, optimizer="sgd", lr=0.5, **values, **how)
        after(trainer, 3)
        trainer.schedule.clip_ranges = clip_ranges
        return after(trainer, 1)

    eager, kept = with_ranges((1e-5, 1e-6)), with_ranges((0.2, 0.2))
    assert_same(eager, with_ranges((1e-5, 1e-6), graphs=True))
    for part in ("actor", "critic"):
        assert not torch.equal(eager[1][0][f"{part}/theta"], kept[1][0][f"{part}/theta"]), part


HOSTED = [
    {"env": "mamujoco/HalfCheetah-2x3", "env_options": ("max_episode_steps=3",)},
    {"env": "mamujoco/Humanoid-9|8", "shared_actor": False, "recurrent": True, "chunk_length": 5, "levels": 3},
]


@pytest.mark.parametrize("values", HOSTED, ids=["shared", "separate"])
def test_environments_on_the_host_train_as_on_the_cpu_with_graphs_or_without(place, values):
    pytest.importorskip("mujoco", reason="pip install mujoco-core gymnasium")
    eager = after(trainer_for(place, **values), 4)
    assert_same(eager, after(trainer_for(place, graphs=True, **values), 4))
    plain = after(trainer_for(CPU, **values), 1)
    for name, tensor in after(trainer_for(place, **values), 1)[1][0].items():
        if "theta" in name or "rollout" in name:
            torch.testing.assert_close(plain[1][0][name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_a_run_goes_from_the_cpu_to_a_card_and_back(place):
    on_card, plain = trainer_for(place), trainer_for(CPU)
    plain.update()
    on_card.restore(plain.tensors(), plain.counters())
    on_card.update()
    plain.restore({name: x.cpu() for name, x in on_card.tensors().items()}, on_card.counters())
    assert plain.updates == 2
    assert plain.actor.learner.steps == 8
    assert plain.update()["lr"] == on_card.update()["lr"]
