"""Seeds trained as one batch: a run directory each, as if each had been trained alone, under one directory."""

import dataclasses
import json
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from kpg_fast.config import Config
from kpg_fast.errors import UsageError
from kpg_fast.runs.directory import RunDirectory, check_new, read_config
from kpg_fast.runs.progress import Progress, Silent
from kpg_fast.runs.run import Run, RunResult, kept_in, resume, train_together
from kpg_fast.runs.stop import StopRequest
from kpg_fast.store.files import write_aside, writing
from kpg_fast.trainer import make_batch

_SEEDS = "batch.json"  # names the seeds whose runs lie beside it


def train_batch(configs: Sequence[Config], base: Path, progress: Progress | None = None) -> list[RunResult]:
    """Train configurations that differ in their seed alone as one batch, each into ``base/seed<seed>``.

    Raises:
        UsageError: as :func:`kpg_fast.train`, or an algorithm or environment that cannot be trained in batches.
        EnvironmentFailure: an environment cannot go on; the state is saved.
    """
    check_new(base)
    configs = [kept_in(path_of(base, config.seed), config) for config in configs]
    with StopRequest() as stop, closing(make_batch(configs)) as batch, ExitStack() as stack:
        runs = []
        for config, trainer in zip(configs, batch.trainers, strict=True):
            directory = RunDirectory.create(path_of(base, config.seed), config, trainer.facts)
            runs.append(Run(trainer, stack.enter_context(closing(directory))))
        with writing(base):
            write_aside(base / _SEEDS, json.dumps({"seeds": [config.seed for config in configs]}) + "\n")
        return train_together(runs, batch.update_all, progress or Silent(), stop)


def resume_batch(base: Path, progress: Progress | None = None) -> list[RunResult]:
    """Go on with all seeds of a batch, exactly as if they had not been stopped.

    Seeds whose last checkpoints are of different updates (the process was killed between two of them), or that shall
    have different lengths, are trained on one after another: a seed comes out the same alone as in a batch.

    Raises:
        UsageError: as :func:`kpg_fast.resume`.
    """
    try:
        paths = [path_of(base, seed) for seed in json.loads((base / _SEEDS).read_text(encoding="utf-8"))["seeds"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{base / _SEEDS} cannot be read: {error}") from error
    configs = [read_config(path) for path in paths]
    # a seed may have been given another length by itself
    if len({dataclasses.replace(config, seed=0, run_dir=None) for config in configs}) == 1:
        with StopRequest() as stop, ExitStack() as stack:
            directories = [stack.enter_context(closing(RunDirectory.open(path))) for path in paths]
            batch = stack.enter_context(closing(make_batch(configs)))
            updates, runs = set(), []
            for trainer, directory in zip(batch.trainers, directories, strict=True):
                runs.append(Run.restored(trainer, directory))
                updates.add(trainer.updates if directory.last.exists() else 0)
            if len(updates) == 1:
                for run in runs:
                    run.note_resumed()
                return train_together(runs, batch.update_all, progress or Silent(), stop)
    results = []
    for path in paths:
        results.append(resume(path, progress))
        if not results[-1].finished:
            break
    return results


def is_batch(base: Path) -> bool:
    """Whether a directory holds the seeds of a batch."""
    return (base / _SEEDS).is_file()


def path_of(base: Path, seed: int) -> Path:
    """The run directory of a seed."""
    return base / f"seed{seed}"
