"""Finished and running runs as data: read from their directories, grouped by configuration."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kpg_fast.config import Config
from kpg_fast.errors import UsageError
from kpg_fast.runs import metrics
from kpg_fast.runs.directory import read_config, read_provenance

# What does not make two runs different experiments.
_OF_THE_RECORD = {"seed", "run_dir", "replay_dir", "checkpoint_every", "eval_every", "eval_every_episodes"}
_INCIDENTAL = _OF_THE_RECORD | {"debug_drift", "graphs"}

_MARK = "provenance.json"  # a directory that holds one is a run


@dataclass(frozen=True)
class Run:
    """One run directory."""

    path: Path
    config: Config
    facts: dict[str, str]
    """Flavour, engine and versions of the environment."""
    metrics: list[dict[str, float]]
    """The lines of ``metrics.jsonl``."""

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read a run directory; ``UsageError`` if it is none or damaged."""
        config = read_config(path)
        facts = read_provenance(path)["facts"]
        return cls(path, config, facts, metrics.read(path / "metrics.jsonl"))

    def curve(self, x: str, y: str) -> NDArray[np.float64]:
        """Metric ``y`` against metric ``x`` where both were measured: float64 [2, points]."""
        points = [(line.get(x, math.nan), line.get(y, math.nan)) for line in self.metrics]
        array = np.array(points, np.float64).reshape(-1, 2).T
        return array[:, np.isfinite(array).all(axis=0)]

    @property
    def evaluation(self) -> dict[str, float]:
        """The final greedy evaluation (``eval/...``); empty while the run is not finished."""
        last = self.metrics[-1] if self.metrics else {}
        if last.get("update", 0) < self.config.num_updates:
            return {}
        return {name: value for name, value in last.items() if name.startswith("eval/")}

    @property
    def task(self) -> str:
        """Environment with its flavour, or its game's version and client: what runs must share to be compared."""
        return name_of_task(self.config.env, self.facts)


def name_of_task(env: str, facts: Mapping[str, str]) -> str:
    """The environment and what sets its results apart: ``smax/2s3z (default flavour)``."""
    marks = [("flavour", "{} flavour"), ("game_version", "game {}"), ("client", "{} client")]
    known = [text.format(facts[fact]) for fact, text in marks if fact in facts]
    return f"{env} ({', '.join(known)})" if known else env


def has_winners(task: str) -> bool:
    """Whether an episode of this environment can be won; nobody wins at running."""
    return not task.startswith("mamujoco/")


def find_runs(paths: Iterable[Path]) -> list[Run]:
    """Read run directories, and those that directories among ``paths`` hold (one or two levels down).

    Raises:
        UsageError: no path, or nothing found under one of them.
    """
    found: dict[Path, None] = {}
    for path in paths:
        files = [path / _MARK, *sorted(path.glob(f"*/{_MARK}")), *sorted(path.glob(f"*/*/{_MARK}"))]
        directories = [file.parent for file in files if file.is_file()]
        if not directories:
            raise UsageError(f"no run directory at {path}: nothing there has a {_MARK}")
        found |= dict.fromkeys(directories)
    if not found:
        raise UsageError("name at least one run directory")
    return [Run.read(path) for path in found]


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ in their seed or environment alone, under a label that says what sets them apart.

    That is the algorithm, K, and those settings in which the algorithm's own runs differ.

    Raises:
        UsageError: the same seed twice in one group and environment, which would count one run as two.
    """
    keys = [_key(run.config) for run in runs]
    of_algorithm: dict[str, list[dict[str, Any]]] = {}
    for key in keys:
        of_algorithm.setdefault(key["algorithm"], []).append(key)
    differing = {name: _differing(own) for name, own in of_algorithm.items()}
    groups: dict[str, list[Run]] = {}
    for run, key in zip(runs, keys, strict=True):
        shown = sorted(differing[run.config.algorithm] - {"levels"})
        label = " ".join([f"{run.config.algorithm} K={run.config.levels}", *(f"{n}={key[n]}" for n in shown)])
        group = groups.setdefault(label, [])
        for other in group:
            if (other.task, other.config.seed) == (run.task, run.config.seed):
                raise UsageError(
                    f"{other.path} and {run.path} are the same configuration and seed; give one of them, or they "
                    "would count as two independent runs"
                )
        group.append(run)
    return groups


def _differing(keys: Sequence[Mapping[str, Any]]) -> set[str]:
    return {name for name in keys[0] if len({key[name] for key in keys}) > 1}


def _key(config: Config) -> dict[str, Any]:
    return {name: value for name, value in config.flat().items() if name not in _INCIDENTAL | {"env"}}
