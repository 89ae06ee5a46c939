"""What a run says while it works: plain lines in a log (display.py has the live display for a terminal)."""

import math
import sys
import warnings
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Protocol

from kpg_fast.runs.records import has_winners, name_of_task
from kpg_fast.trainer import Trainer

_LINE_EVERY = 10.0  # seconds between plain lines
_SPLIT = ("env", "policy", "levels", "critic")
_FINITE = ("grad_norm", "critic_grad_norm", "critic_loss")  # of an update that learned anything


class Progress(Protocol):
    """Where a run reports to; a context manager around its updates."""

    def begin(self, trainer: Trainer, run_dir: Path, seeds: Sequence[int] = ()) -> None:
        """The run starts (or goes on); ``seeds`` are those of a batch that ``trainer`` is one of."""

    def update(self, metrics: dict[str, float]) -> None:
        """One more update is done."""

    def note(self, text: str) -> None:
        """Say something once."""

    def __enter__(self) -> "Progress": ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Silent:
    """Says nothing; what a run must warn of is a Python warning."""

    def begin(self, trainer: Trainer, run_dir: Path, seeds: Sequence[int] = ()) -> None:
        """See :class:`Progress`."""
        self.status = Status(trainer, seeds)

    def update(self, metrics: dict[str, float]) -> None:
        """See :class:`Progress`."""
        warning = self.status.add(metrics)
        if warning:
            warnings.warn(warning, stacklevel=2)

    def note(self, text: str) -> None:
        """See :class:`Progress`."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Lines(Silent):
    """A line now and then, for logs and pipes."""

    def __enter__(self) -> "Lines":
        return self

    def begin(self, trainer: Trainer, run_dir: Path, seeds: Sequence[int] = ()) -> None:
        """See :class:`Progress`."""
        super().begin(trainer, run_dir, seeds)
        self.next_line = 0.0
        self.note(f"{self.status.title}, run directory {run_dir}")

    def update(self, metrics: dict[str, float]) -> None:
        """See :class:`Progress`."""
        warning = self.status.add(metrics)
        if warning:
            self.note(f"warning: {warning}")
        last = metrics["update"] == self.status.num_updates
        if last or "eval/return_mean" in metrics or perf_counter() >= self.next_line:
            self.note("  ".join(f"{name} {value}" for name, value in self.status.cells(metrics).items()))
            self.next_line = perf_counter() + _LINE_EVERY

    def note(self, text: str) -> None:
        """See :class:`Progress`."""
        print(text, flush=True)


def for_this_terminal() -> Progress:
    """The live display where standard output is a terminal, plain lines elsewhere."""
    if not sys.stdout.isatty():
        return Lines()
    from kpg_fast.runs.display import Display

    return Display()


def summary(lines: Sequence[dict[str, float]]) -> dict[str, float]:
    """The lines of a batch as one: rates added up, anything else as the mean over the seeds that have it."""
    if len(lines) == 1:
        return lines[0]
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for line in lines for name in line):
        values = [line[name] for line in lines if name in line]
        found[name] = sum(values) / (1 if name.endswith("_sps") else len(values))
    return found


class Status:
    """What to show of the metrics."""

    def __init__(self, trainer: Trainer, seeds: Sequence[int] = ()) -> None:
        config = trainer.config
        several = "seeds " + " ".join(map(str, seeds)) if len(seeds) > 1 else f"seed {config.seed}"
        self.num_updates = trainer.num_updates
        task = name_of_task(config.env, trainer.facts)
        self.title = f"{config.algorithm} K={config.levels} on {task}, {several}"
        self.total_steps = trainer.num_updates * (config.total_steps // config.num_updates)
        self.finished_at: deque[float] = deque(maxlen=20)
        self.has_winners = has_winners(task)
        self.warned: set[str] = {""}

    def add(self, metrics: dict[str, float]) -> str | None:
        """Take note of an update; returns a warning that is due for the first time."""
        self.finished_at.append(perf_counter())
        kind, text = self._warning(metrics)
        if kind in self.warned:
            return None
        self.warned.add(kind)
        return text

    def _warning(self, metrics: dict[str, float]) -> tuple[str, str | None]:
        """What is wrong with an update, as its kind and a text."""
        lost = [name for name in _FINITE if not math.isfinite(metrics.get(name, 0.0))]
        if lost:
            return "diverged", (
                f"{lost[0]} is not finite at update {metrics['update']:.0f}: the run has diverged and will not come "
                "back. Lower --lr. Evaluations on the way (--eval-every) leave the best state in checkpoints/best."
            )
        ratio = metrics.get("contraction_ratio", 0.0)
        if not ratio > 1:
            return "", None
        return "contraction", (
            f"contraction ratio {ratio:.2f} > 1 at update {metrics['update']:.0f}: each level moves the "
            "policies further than the one before, so more levels do not settle. Lower --lr, or use fewer --levels; "
            "metrics.jsonl keeps contraction_ratio and delta/1..K of every update."
        )

    def cells(self, metrics: dict[str, float]) -> dict[str, str]:
        """Short texts by name, in the order to show them."""
        update, steps = int(metrics["update"]), int(metrics["env_steps"])
        # the first update compiles kernels and says nothing about the rest
        intervals = len(self.finished_at) - 1
        each = (self.finished_at[-1] - self.finished_at[0]) / intervals if intervals else None
        cells = {
            "steps": f"{steps:,}/{self.total_steps:,}",
            "update": f"{update}/{self.num_updates}",
            "eta": "-" if each is None else _duration(each * (self.num_updates - update)),
        }
        for name, metric, form in (
            ("env_sps", "env_sps", ",.0f"),
            ("agent_sps", "agent_sps", ",.0f"),
            ("win", "win_rate", ".3f"),
            ("return", "return_mean", ".3f"),
            ("greedy win", "eval/win_rate", ".3f"),
            ("greedy return", "eval/return_mean", ".3f"),
        ):
            if metric in metrics and (self.has_winners or "win" not in name):
                cells[name] = format(metrics[metric], form)
        if dropped := metrics.get("smac/dropped_episodes"):
            cells["lost episodes"] = f"{dropped:.0f}"
        parts = {name: metrics.get(f"time/{name}", 0.0) for name in _SPLIT}
        if total := sum(parts.values()):
            cells["time"] = " ".join(f"{name} {100 * part / total:.0f}%" for name, part in parts.items())
        return cells


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
