"""A run from its configuration to its result: train, stop and resume exactly, evaluate, load."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from kpg_fast.config import Config
from kpg_fast.envs import VecEnv
from kpg_fast.errors import EnvironmentFailure, UsageError
from kpg_fast.off_policy.settings import OffPolicy
from kpg_fast.place import on_cpu, on_this_machine
from kpg_fast.runs.directory import RunDirectory, check_new, default_path, read_config, to_config
from kpg_fast.runs.metrics import MetricsLog
from kpg_fast.runs.progress import Progress, Silent, summary
from kpg_fast.runs.records import name_of_task
from kpg_fast.runs.result import write_result
from kpg_fast.runs.same import require_same
from kpg_fast.runs.stop import StopRequest
from kpg_fast.store import checkpoint
from kpg_fast.trainer import Trainer, make_trainer


@dataclass(frozen=True)
class RunResult:
    """What :func:`train` and :func:`resume` return."""

    run_dir: Path
    finished: bool
    """Whether all updates were done; if not, :func:`resume` goes on."""
    updates: int
    env_steps: int
    """Environment steps, over all environments."""
    seconds: float
    """Wall-clock of the run, resumed stretches added up."""
    metrics: dict[str, float]
    """The last line of ``metrics.jsonl``; the final greedy evaluation's metrics begin with ``eval/``."""


def train(config: Config, progress: Progress | None = None) -> RunResult:
    """Train one seed of one configuration and keep everything in a new run directory.

    Args:
        config: see :class:`kpg_fast.config.Config`; ``Config.make("k-mappo", "smax/2s3z", levels=2)`` builds one.
        progress: where to report to; by default nowhere.

    Returns:
        The result; ``finished`` is false if Ctrl-C or SIGTERM stopped the run (its state is saved).

    Raises:
        UsageError: a value out of range, an unknown environment or option, a run directory that exists or cannot be
            written. Nothing has been written then.
        EnvironmentFailure: an environment cannot go on; the state is saved.
    """
    config.check()
    path = Path(config.run_dir) if config.run_dir else default_path(config)
    check_new(path)
    config = kept_in(path, config)
    with (
        StopRequest() as stop,
        closing(make_trainer(config)) as trainer,
        closing(RunDirectory.create(path, config, trainer.facts)) as directory,
    ):
        return train_together([Run(trainer, directory)], lambda: [trainer.update()], progress or Silent(), stop)[0]


def resume(run_dir: str | Path, progress: Progress | None = None, total_steps: int | None = None) -> RunResult:
    """Go on with a run that was stopped or killed, exactly as if it had not been (on the same machine).

    A run that was killed goes on from its last checkpoint; one that is finished is left as it is.

    Args:
        run_dir: of the run.
        progress: where to report to; by default nowhere.
        total_steps: environment steps the run shall have in the end, in place of those it was made for; a finished run
            then goes on. It equals a run that was made for so many, but for the evaluation at its former end.

    Raises:
        UsageError: no run directory, another process writes to it, a checkpoint that is damaged or of other shapes, or
            a ``total_steps`` that is already passed or that the learning rate was not annealed over.
    """
    path = Path(run_dir)
    kept = read_config(path)
    config = _lengthened(kept, total_steps)
    with (
        StopRequest() as stop,
        closing(RunDirectory.open(path)) as directory,
        closing(make_trainer(config)) as trainer,
    ):
        run = Run.restored(trainer, directory)
        if config.num_updates != kept.num_updates:
            if run.finished:  # it would end without a final evaluation
                raise UsageError(f"total_steps = {total_steps}: {path} has done {trainer.env_steps} already")
            directory.write_json("config.json", config.to_dict())
        run.note_resumed()
        return train_together([run], lambda: [trainer.update()], progress or Silent(), stop)[0]


def kept_in(path: Path, config: Config) -> Config:
    """The configuration of a run in ``path``, which can be resumed from anywhere."""
    settings = config.settings
    if isinstance(settings, OffPolicy) and settings.replay_dir is not None:
        settings = dataclasses.replace(settings, replay_dir=str(Path(settings.replay_dir).absolute()))
    return dataclasses.replace(config, run_dir=str(path), settings=settings)


def _lengthened(config: Config, total_steps: int | None) -> Config:
    """The configuration of a run that goes on to ``total_steps``; ``UsageError`` if it cannot."""
    if total_steps is None or total_steps == config.total_steps:
        return config
    if getattr(config.settings, "anneal_lr", False):
        raise UsageError(
            f"total_steps = {total_steps}: this run's learning rate is annealed over total_steps = "
            f"{config.total_steps}; make a run of the other length, or one with --no-anneal-lr"
        )
    longer = dataclasses.replace(config, total_steps=total_steps)
    longer.check()
    return longer


def load(path: str | Path) -> Trainer:
    """The trainer of a run in its last state, ready to act, to evaluate or to train on.

    ``load(path).player(E).act(obs, avail_actions, reset, counter, greedy=True)`` gives the actions [E, N] and their
    log-probabilities [E, N] for obs [E, N, O], avail_actions [E, N, A] bool and reset [E] bool (an episode begins);
    ``counter`` numbers the calls, for the random numbers of sampled actions. Continuous actions [E, N, A] are in units
    in which an actuator's bounds are -1 and 1; the player's ``for_env`` gives what the environment takes.

    Args:
        path: a run directory, or a checkpoint such as ``RUN_DIR/checkpoints/best``.

    Raises:
        UsageError: neither, or a checkpoint that is damaged or of other shapes.
    """
    return _load(Path(path), on_this_machine)


def _load(path: Path, where: Callable[[Config], Config]) -> Trainer:
    config = read_config(path) if (path / "config.json").is_file() else None
    saved = path / "checkpoints" / "last" if config else path
    if config and not saved.exists():
        raise UsageError(f"{path} has no checkpoint yet")
    tensors, meta = _read_checkpoint(saved)
    trainer = make_trainer(where(config or to_config(meta["config"], saved)))
    try:
        trainer.restore(tensors, meta["counters"])
    except BaseException:
        trainer.close()
        raise
    return trainer


def evaluate(path: str | Path, episodes: int = 512, watch: Callable[[VecEnv], None] | None = None) -> dict[str, float]:
    """Play greedy episodes with a run's policies.

    Args:
        path: a run directory (its last state) or a checkpoint.
        episodes: how many; environments are fresh and seeded from the run's seed, so the same call plays the same
            episodes.
        watch: called with the environments before every step, and at the end.

    Returns:
        ``eval/win_rate`` (share of episodes), ``eval/return_mean`` (sum of rewards an episode), ``eval/length_mean``
        (environment steps an episode).

    Raises:
        UsageError: as :func:`load`, or ``episodes < 1``.
    """
    if episodes < 1:
        raise UsageError(f"episodes = {episodes}: must be at least 1")
    with closing(_load(Path(path), on_cpu)) as trainer:  # which plays it anyway: a card keeps its memory
        return trainer.evaluate(episodes, watch)


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, meta = checkpoint.load(path)
    if not {"config", "counters"} <= meta.keys():
        raise UsageError(f"{path} is not the checkpoint of a run")
    return {name: torch.as_tensor(tensor) for name, tensor in tensors.items()}, meta


class Run:
    """One seed's run between its trainer and its directory: evaluate when due, log, save."""

    def __init__(self, trainer: Trainer, directory: RunDirectory, meta: dict[str, Any] | None = None) -> None:
        self.trainer, self.directory = trainer, directory
        meta = meta or {}
        self.start = perf_counter() - float(meta.get("seconds", 0.0))
        self.best = tuple(meta.get("best", ()))

    @classmethod
    def restored(cls, trainer: Trainer, directory: RunDirectory) -> "Run":
        """The run as its last checkpoint has it, or from its beginning if there is none."""
        if not directory.last.exists():
            return cls(trainer, directory)
        tensors, meta = _read_checkpoint(directory.last)
        require_same(trainer.config, to_config(meta["config"], directory.last), directory.path)
        trainer.restore(tensors, meta["counters"])
        return cls(trainer, directory, meta)

    def note_resumed(self) -> None:
        """Keep what the rest of the run will come from, if there is a rest."""
        if not self.finished:
            self.directory.note_resumed(self.trainer.facts, self.trainer.updates)

    @property
    def finished(self) -> bool:
        """Whether all updates are done."""
        return self.trainer.updates >= self.trainer.num_updates

    @property
    def seconds(self) -> float:
        """Wall-clock so far."""
        return perf_counter() - self.start

    def log(self) -> MetricsLog:
        """The run's ``metrics.jsonl``, to be appended to."""
        trainer = self.trainer
        return MetricsLog(self.directory.path, trainer.updates, name_of_task(trainer.config.env, trainer.facts))

    def after_update(self, metrics: dict[str, float], before: int, log: MetricsLog, stopping: bool) -> dict[str, float]:
        """Evaluate, log and save as is due after an update; returns the line of the log.

        Args:
            metrics: of the update.
            before: environment steps before it.
            log: takes the line.
            stopping: whether this was the last one for now.
        """
        trainer, config = self.trainer, self.trainer.config
        due = config.eval_every and trainer.env_steps // config.eval_every > before // config.eval_every
        if self.finished or due:
            began = perf_counter()
            metrics |= trainer.evaluate(config.eval_episodes if self.finished else config.eval_every_episodes)
            metrics["time/eval"] = perf_counter() - began
            self.keep_best(metrics)
        line = {"update": trainer.updates, "env_steps": trainer.env_steps, "seconds": self.seconds} | metrics
        log.write(line)
        if stopping or self.finished or trainer.updates % config.checkpoint_every == 0:
            self.save("last")
        return line

    def keep_best(self, metrics: dict[str, float]) -> None:
        """Save the state if its evaluation beats all before it: by win rate where there is one, then by return."""
        score = tuple(
            value if math.isfinite(value) else -math.inf
            for value in (metrics.get("eval/win_rate", math.nan), metrics["eval/return_mean"])
        )
        if score > self.best:
            self.best = score
            self.save("best")

    def save(self, name: str) -> None:
        """Write a checkpoint."""
        meta = {
            "config": self.trainer.config.to_dict(),
            "facts": self.trainer.facts,
            "counters": self.trainer.counters(),
            "seconds": self.seconds,
            "best": list(self.best),
        }
        self.directory.save(name, self.trainer.tensors(), meta)

    def result(self, last: dict[str, float]) -> RunResult:
        """What came of it; ``last`` is the last line of its log."""
        if self.finished:
            write_result(self.directory)
        return RunResult(
            run_dir=self.directory.path,
            finished=self.finished,
            updates=self.trainer.updates,
            env_steps=self.trainer.env_steps,
            seconds=last.get("seconds", 0.0),
            metrics=last,
        )


def train_together(
    runs: Sequence[Run], update: Callable[[], list[dict[str, float]]], progress: Progress, stop: StopRequest
) -> list[RunResult]:
    """Train runs that are at the same update until they are finished or stopped.

    Args:
        runs: one, or the seeds of a batch.
        update: updates all of them once; the metrics of each.
        progress: where to report to.
        stop: asked after every update.
    """
    first = runs[0]
    with ExitStack() as logs, progress:
        written = [logs.enter_context(run.log()) for run in runs]
        where = first.directory.path if len(runs) == 1 else first.directory.path.parent
        progress.begin(first.trainer, where, [run.trainer.config.seed for run in runs])
        stopping = stop.requested
        while not first.finished and not stopping:
            before = first.trainer.env_steps
            try:
                metrics = update()
            except EnvironmentFailure as failure:
                for run in runs:
                    run.save("last")  # a rollout comes before learning: the parameters are the last update's
                paths = " ".join(str(run.directory.path) for run in runs)
                raise EnvironmentFailure(
                    f"{failure}\nthe state is saved; to go on: kpg-fast resume {paths}"
                ) from failure
            stopping = stop.requested  # asked once: what comes later comes after the next update, which is saved
            lines = [
                run.after_update(own, before, log, stopping)
                for run, own, log in zip(runs, metrics, written, strict=True)
            ]
            progress.update(summary(lines))
    return [run.result(log.last) for run, log in zip(runs, written, strict=True)]
