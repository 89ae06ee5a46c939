"""What the run loop needs of an algorithm: update, evaluate, and everything an exact resume needs."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from kpg_fast.config import Config
from kpg_fast.envs import VecEnv
from kpg_fast.errors import UsageError
from kpg_fast.rollout import Policy


class Trainer(Protocol):
    """One algorithm on one environment. Built from a ``Config``; knows no files, no terminal."""

    config: Config
    facts: dict[str, str]
    """What every result must name: flavour, engine, versions."""
    num_updates: int
    """Updates of the whole run."""

    @property
    def updates(self) -> int:
        """Updates done."""

    @property
    def env_steps(self) -> int:
        """Environment steps done (sum over environments)."""

    def update(self) -> dict[str, float]:
        """Roll out, update once, and return this update's metrics."""

    def evaluate(self, episodes: int, watch: Callable[[VecEnv], None] | None = None) -> dict[str, float]:
        """Play greedy episodes on fresh environments: ``eval/win_rate``, ``eval/return_mean``, ``eval/length_mean``.

        ``watch`` is called with the environments before every step and at the end (to draw them). Training is not
        touched: the next :meth:`update` does the same as without the evaluation.
        """

    def player(self, num_envs: int) -> Policy:
        """The current policies for ``num_envs`` environments, at the beginning of an episode in each."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything with a shape that an exact resume needs: parameters, optimiser, hidden states, environments."""

    def counters(self) -> dict[str, Any]:
        """The rest of it as JSON values."""

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Continue exactly where ``tensors`` and ``counters`` were taken; ``UsageError`` on other names or shapes."""

    def close(self) -> None:
        """Release the environments."""


class Batch(Protocol):
    """Seeds that are trained as one, each with the numbers it would have alone."""

    @property
    def trainers(self) -> Sequence[Trainer]:
        """One a seed; only :meth:`update_all` updates them."""

    def update_all(self) -> list[dict[str, float]]:
        """Update every seed once; the metrics of each."""

    def close(self) -> None:
        """Release the environments."""


def make_trainer(config: Config) -> Trainer:
    """Build the trainer of ``config.algorithm``."""
    config.check()
    if config.algorithm == "k-mappo":
        from kpg_fast.k_mappo_trainer import KMappoTrainer

        return KMappoTrainer(config)
    from kpg_fast.off_policy.trainer import OffPolicyTrainer

    return OffPolicyTrainer(config)


def make_batch(configs: Sequence[Config]) -> Batch:
    """Build the trainers of configurations that differ in their seed alone; ``UsageError`` where there is no batch."""
    for config in configs:
        config.check()
    if configs[0].algorithm != "k-mappo":
        raise UsageError(f"batch_seeds: {configs[0].algorithm} trains one seed after another; k-mappo has batches")
    from kpg_fast.k_mappo_seeds import SeedBatch

    return SeedBatch(configs)
