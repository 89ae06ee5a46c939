"""A whole K-MAPPO update, rollout included, by the GPU's kernels in place of the CPU's: the operations fit together."""

import sys
from importlib import import_module

import pytest
import torch

from kpg_fast.config import Config
from kpg_fast.k_mappo_trainer import KMappoTrainer

OPS = ("gae", "value_loss", "k_level_surrogate", "policy", "linear", "gru", "agent_embedding", "lookahead")
SMALL = {
    **{"num_envs": 2, "num_steps": 3, "num_minibatches": 1, "num_epochs": 1, "hidden": 6, "total_steps": 6},
    **{"preset": "kpg", "optimizer": "sgd", "lr": 0.5, "anneal_lr": False, "ent_coef": 0.01, "levels": 2},
}


def after_one_update(**values):
    """How the parameters of actor and critic have moved."""
    trainer = KMappoTrainer(Config.make("k-mappo", "smax/3m", **(SMALL | values)), torch.float32)
    stores = (trainer.actor.learner.store, trainer.critic.learner.store)
    before = [store.slot("theta").clone() for store in stores]
    trainer.update()
    return [store.slot("theta") - old for store, old in zip(stores, before, strict=True)]


@pytest.mark.parametrize(
    "values",
    [{"agent_id": True}, {"shared_actor": False, "precision": "mixed-lookahead"}],
    ids=["shared", "separate-bf16-lookahead"],
)
def test_an_update_moves_the_parameters_as_on_the_cpu(device, monkeypatch, values):
    if device.type == "cuda":
        pytest.skip("the trainer runs on the CPU; interpreted, its kernels can be exchanged")
    expected = after_one_update(**values)
    for op in OPS:
        monkeypatch.setitem(sys.modules, f"kpg_fast.kernels.{op}.cpu", import_module(f"kpg_fast.kernels.{op}.gpu"))
    for ours, cpus in zip(after_one_update(**values), expected, strict=True):
        assert cpus.norm() > 1e-3
        assert (ours - cpus).norm() < 1e-4 * cpus.norm()
