"""Rollouts whose environments step on the host beside a learner elsewhere: the same run as where all is together."""

import pytest
import torch

from kpg_fast.config import Config
from kpg_fast.errors import UsageError
from kpg_fast.k_mappo_trainer import KMappoTrainer
from kpg_fast.place import CPU, Place
from tests.test_queued import CARD, Queued
from tests.test_seeds import measured

SMALL = {"num_epochs": 2, "num_minibatches": 2, "hidden": 10, "total_steps": 24 * 50}
HOSTED = Place(torch.device("cpu"), hosted=True)


def trainer_for(place: Place, num_envs: int = 4, seeds=None, **values) -> KMappoTrainer:
    shape = {"num_envs": num_envs, "num_steps": 24 // num_envs, "env_options": ("max_episode_steps=5",)}
    config = Config.make("k-mappo", "mamujoco/Ant-4x2", **(SMALL | shape | {"levels": 2} | values))
    return KMappoTrainer(config, seeds=seeds, place=place)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"recurrent": True, "shared_actor": False},
        {"recurrent": True, "chunk_length": 3, "precision": "mixed-lookahead", "levels": 3},
        {"num_envs": 3, "num_minibatches": 1},
    ],
    ids=str,
)
def test_half_batches_train_as_whole_ones(values):
    together, hosted = trainer_for(CPU, **values), trainer_for(HOSTED, **values)
    for _ in range(2):
        assert measured(together.update()) == measured(hosted.update())
    expected, got = together.tensors(), hosted.tensors()
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert tensor.numpy().tobytes() == got[name].contiguous().numpy().tobytes(), name
    again = trainer_for(HOSTED, **values)
    again.restore(expected, together.counters())
    assert measured(again.update()) == measured(together.update())
    for episodes in (2, 5, 2):
        assert again.evaluate(episodes) == together.evaluate(episodes)


def test_seeds_take_turns_themselves():
    with pytest.raises(UsageError, match="one after another"):
        trainer_for(HOSTED, seeds=(0, 1))


def test_environments_that_only_step_together_are_refused():
    config = Config.make("k-mappo", "toy/meetup", **SMALL, num_envs=4, num_steps=6)
    with pytest.raises(UsageError, match="steps all environments together"):
        KMappoTrainer(config, place=HOSTED)


@pytest.mark.parametrize("values", [{}, {"shared_actor": False, "precision": "tf32", "chunk_length": 3}], ids=str)
def test_the_update_waits_for_nothing(monkeypatch, values):
    """On torch's device meta, after a rollout that never was; what came in between is the host's business."""
    values = values | {"device": "cuda", "recurrent": bool(values)}
    monkeypatch.setattr("kpg_fast.rollout.Rollout.begin", lambda *_: None)
    trainer = trainer_for(Place(CARD, queued=True, hosted=True), **values)
    monkeypatch.setattr("kpg_fast.place.Sent.send", lambda self: None)
    trainer.schedule.begin(0)
    trainer.schedule.shuffle(trainer.generators)
    with Queued():
        _, table = trainer._learn()
    assert table.device == CARD
