"""Seeds that are trained as one batch, each a trainer of its own for what a run keeps, evaluates and resumes."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from kpg_fast.config import Config
from kpg_fast.envs import VecEnv
from kpg_fast.errors import UsageError
from kpg_fast.k_mappo_trainer import KMappoTrainer
from kpg_fast.policies import Actor


class SeedTrainer:
    """See :class:`kpg_fast.trainer.Trainer`; its state is that of a run of this seed alone, in both directions."""

    def __init__(self, batch: KMappoTrainer, index: int) -> None:
        self.batch, self.index = batch, index
        self.config, self.facts = batch.configs[index], batch.facts
        self.num_updates = batch.num_updates

    @property
    def updates(self) -> int:
        """See :class:`kpg_fast.trainer.Trainer`."""
        return self.batch.updates

    @property
    def env_steps(self) -> int:
        """See :class:`kpg_fast.trainer.Trainer`."""
        return self.batch.env_steps

    def update(self) -> dict[str, float]:
        """Refused: seeds of a batch are updated together."""
        raise UsageError("a seed of a batch is not updated by itself")

    def evaluate(self, episodes: int, watch: Callable[[VecEnv], None] | None = None) -> dict[str, float]:
        """See :class:`kpg_fast.trainer.Trainer`."""
        return self.batch.evaluate(episodes, watch, self.index)

    def player(self, num_envs: int) -> Actor:
        """See :class:`kpg_fast.trainer.Trainer`."""
        return self.batch.player(num_envs, self.index)

    def tensors(self) -> dict[str, Tensor]:
        """See :class:`kpg_fast.trainer.Trainer`."""
        return self.batch.tensors(self.index)

    def counters(self) -> dict[str, Any]:
        """See :class:`kpg_fast.trainer.Trainer`."""
        return self.batch.counters()

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """See :class:`kpg_fast.trainer.Trainer`; all seeds must be restored to the same update."""
        self.batch.restore(tensors, counters, self.index)

    def close(self) -> None:
        """Nothing that the others do not use."""


class SeedBatch:
    """See :class:`kpg_fast.trainer.Batch`."""

    def __init__(self, configs: Sequence[Config]) -> None:
        self.joint = KMappoTrainer(configs[0], seeds=[config.seed for config in configs])
        self.joint.configs = list(configs)
        self.trainers = [SeedTrainer(self.joint, index) for index in range(len(configs))]

    def update_all(self) -> list[dict[str, float]]:
        """See :class:`kpg_fast.trainer.Batch`."""
        return self.joint.update_all()

    def close(self) -> None:
        """See :class:`kpg_fast.trainer.Batch`."""
        self.joint.close()
