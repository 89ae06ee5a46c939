import pytest
import torch

from bench.plain_mappo import PlainKMappo
from bench.update import first_minibatch
from kpg_fast.config import Config
from kpg_fast.k_mappo_trainer import KMappoTrainer


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize("levels", [1, 3])
def test_plain_implementation_learns_the_same(levels, shared):
    values = {"num_envs": 4, "num_steps": 9, "num_minibatches": 2, "hidden": 6, "max_grad_norm": 1e9}
    config = Config.make("k-mappo", "smax/3m", levels=levels, shared_actor=shared, **values)
    trainer = KMappoTrainer(config, torch.float64)
    plain = PlainKMappo(trainer)
    batch = first_minibatch(trainer)
    for _ in range(2):
        trainer.algorithm.update(batch)
        plain.update(batch.seed(0))
    ours = PlainKMappo(trainer)  # our parameters in modules
    for mine, other in zip([*ours.actors, ours.critic], [*plain.actors, plain.critic], strict=True):
        for (name, value), reference in zip(mine.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(value, reference, atol=1e-11, rtol=0, msg=name)
