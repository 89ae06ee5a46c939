"""Off-policy training in a card's way, with the CPU in the card's place: the run that the CPU does in its own way."""

import pytest
import torch

from kpg_fast.config import Config
from kpg_fast.off_policy.trainer import OffPolicyTrainer
from kpg_fast.place import CPU, Place

TINY = {
    "num_envs": 2, "num_steps": 10, "batch_size": 8, "buffer_size": 32, "warmup": 8, "start_steps": 20, "hidden": 8,
    "total_steps": 2000, "levels": 2,
}  # fmt: skip
HOSTED = Place(torch.device("cpu"), hosted=True)
EPISODES = {"env": "toy/climbing", "preset": "smac", "recurrent": True, "epsilon_steps": 100}


def trainer_for(place: Place, capture=None, algorithm="k-facmac", env="toy/meetup", **values) -> OffPolicyTrainer:
    return OffPolicyTrainer(Config.make(algorithm, env, **(TINY | values)), place=place, capture=capture)


def after(trainer: OffPolicyTrainer, updates: int) -> tuple[list[dict], dict]:
    """Metrics but for times, and all that a checkpoint keeps."""
    metrics = [trainer.update() for _ in range(updates)]
    timeless = [{n: repr(v) for n, v in m.items() if "sps" not in n and "time" not in n} for m in metrics]
    return timeless, {name: value.clone() for name, value in trainer.tensors().items()}


def assert_same(one, other) -> None:
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    for name, value in one[1].items():
        assert value.numpy().tobytes() == other[1][name].contiguous().numpy().tobytes(), name


@pytest.mark.parametrize(
    "values",
    [
        {"state_norm": True, "rmsprop_correction": True, "shared_actor": False},
        {"algorithm": "k-maddpg", "levels": 3, "updates_per_sample": 1.7},
        {"algorithm": "k-maddpg", "env": "toy/climbing", "target_interval": 3, "agent_id": True},
        {"env": "toy/climbing", "preset": "smac", "recurrent": True, "levels": 1, "num_envs": 3, "warmup": 10},
        {"updates_per_sample": 0.3, "optimizer": "adam", "precision": "bf16"},
    ],
    ids=str,
)
def test_it_is_the_same_run(values):
    plain, hosted = trainer_for(CPU, **values), trainer_for(HOSTED, **values)
    expected = after(plain, 4)
    assert "critic_loss" in expected[0][-1]
    assert_same(expected, after(hosted, 4))
    again = trainer_for(HOSTED, **values)
    again.restore(expected[1], plain.counters())
    back = trainer_for(CPU, **values)
    back.restore(hosted.tensors(), hosted.counters())
    next_one = after(plain, 1)
    assert_same(next_one, after(again, 1))
    assert_same(next_one, after(back, 1))
    assert again.counters() == plain.counters()
    assert again.evaluate(3) == plain.evaluate(3)
