"""What the run loop needs of an algorithm: update, evaluate, and everything an exact resume needs."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
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


def require_fit(mine: dict[str, Tensor], theirs: dict[str, Tensor], free: AbstractSet[str] = frozenset()) -> None:
    """Raise ``UsageError`` for the first name or shape in which a checkpoint differs from what a run needs.

    ``free`` names what may differ.
    """
    for name in sorted((mine.keys() | theirs.keys()) - free):
        if name not in theirs or name not in mine:
            raise UsageError(f"{name} is {'missing from the checkpoint' if name in mine else 'unknown to this run'}")
        if mine[name].shape != theirs[name].shape:
            raise UsageError(
                f"{name} has shape {tuple(theirs[name].shape)} in the checkpoint; this run needs "
                f"{tuple(mine[name].shape)}"
            )


def contraction(deltas: Sequence[float]) -> dict[str, float]:
    """The largest Delta_{k+1} / Delta_k of one update, Delta_k being how far level k moved from level k - 1."""
    ratios = [after / before for before, after in pairwise(deltas) if before > 0]
    return {"contraction_ratio": max(ratios)} if ratios else {}
