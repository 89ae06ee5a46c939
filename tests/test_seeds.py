"""Seeds trained as one batch come out bit for bit as alone."""

import pytest
import torch

from kpg_fast.config import Config
from kpg_fast.errors import UsageError
from kpg_fast.k_mappo_trainer import KMappoTrainer
from kpg_fast.seeds import by_seed, side_by_side, take

SMALL = {"num_envs": 4, "num_steps": 8, "num_minibatches": 2, "num_epochs": 2, "hidden": 10, "total_steps": 32 * 50}
SEEDS = (7, 0, 2**32 - 1)


def trainer_for(seeds=None, **values) -> KMappoTrainer:
    config = Config.make("k-mappo", "smax/3m", **(SMALL | {"levels": 2} | values))
    return KMappoTrainer(config, seeds=seeds)


def measured(metrics):
    """What a clock had no part in; as text, so that a NaN equals itself."""
    return {n: repr(v) for n, v in metrics.items() if not n.startswith("time/") and not n.endswith("_sps")}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"shared_actor": False},
        {"recurrent": False, "agent_id": True, "ent_coef": 0.01},
        {"precision": "mixed-lookahead", "shared_actor": False, "levels": 3},
        {"chunk_length": 4, "value_norm": True, "death_mask": True},
        {"chunk_length": 4, "shared_actor": False, "preset": "kpg"},
        {"env_options": ("max_steps=3",), "lookahead_share": 0.5, "level1_others": "current"},
        {"env_options": ("action_type=continuous",), "input_norm": True, "shared_actor": False},
    ],
    ids=str,
)
def test_a_seed_comes_out_of_a_batch_as_alone(values):
    batch = trainer_for(SEEDS, **values)
    together = [batch.update_all() for _ in range(2)]
    for index, seed in enumerate(SEEDS):
        alone = trainer_for(seed=seed, **values)
        for metrics in together:
            assert measured(metrics[index]) == measured(alone.update())
        of_batch = batch.tensors(index)
        for name, tensor in alone.tensors().items():
            assert tensor.numpy().tobytes() == of_batch[name].contiguous().numpy().tobytes(), name
    assert batch.counters() == alone.counters()


def test_seeds_differ_from_one_another():
    batch = trainer_for((0, 1))
    batch.update_all()
    assert not torch.equal(*(batch.tensors(index)["actor/theta"] for index in (0, 1)))
    assert not torch.equal(*(batch.tensors(index)["rollout/obs"] for index in (0, 1)))


def test_a_batch_goes_on_from_the_states_of_single_runs():
    single = [trainer_for(seed=seed) for seed in SEEDS]
    for trainer in single:
        trainer.update()
    batch = trainer_for(SEEDS)
    for index, trainer in enumerate(single):
        batch.restore(trainer.tensors(), trainer.counters(), index)
    metrics = batch.update_all()
    for index, trainer in enumerate(single):
        assert measured(metrics[index]) == measured(trainer.update())
        assert torch.equal(batch.tensors(index)["actor/theta"], trainer.tensors()["actor/theta"])


def test_an_evaluation_is_the_seeds_own():
    batch, alone = trainer_for(SEEDS), trainer_for(seed=SEEDS[2])
    assert batch.evaluate(6, index=2) == alone.evaluate(6)
    assert batch.player(5, 2).seeds == (SEEDS[2],)


def test_games_that_take_turns_are_refused(monkeypatch):
    monkeypatch.setattr("kpg_fast.k_mappo_trainer.UnevenVecEnv", object)
    with pytest.raises(UsageError, match="batch_seeds: games of smax/3m take turns"):
        trainer_for(SEEDS)
    trainer_for((3,))


def test_views_of_seeds():
    x = torch.arange(2 * 6 * 3).view(2, 6, 3)  # [T, S * E, ...]
    assert torch.equal(by_seed(x, 3)[1, 0], x[0, 2:4])
    assert torch.equal(side_by_side(by_seed(x, 3)), x)
    samples = torch.tensor([[1], [0], [1]])
    assert torch.equal(take(by_seed(x, 3), samples), torch.stack([x[:, 1:2], x[:, 2:3], x[:, 5:6]]))
