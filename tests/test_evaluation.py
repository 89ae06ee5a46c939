from contextlib import closing

import pytest

from kpg_fast.config import Config
from kpg_fast.k_mappo_trainer import KMappoTrainer

SMALL = {"num_envs": 2, "num_steps": 4, "num_minibatches": 1, "num_epochs": 1, "hidden": 8, "total_steps": 8}


@pytest.mark.parametrize("episodes", [2, 6], ids=["one an environment", "three an environment"])
def test_watching_changes_nothing(episodes):
    with closing(KMappoTrainer(Config.make("k-mappo", "smax/3m", **SMALL))) as trainer:
        trainer.evaluations[0].most = 2
        alone, frames = trainer.evaluate(episodes), []
        assert trainer.evaluate(episodes, frames.append) == alone
        assert len(frames) > alone["eval/length_mean"]
