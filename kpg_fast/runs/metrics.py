"""metrics.jsonl: one line an update, under our names and, beside them, those that PyMARL's tools look for.

Every line says what it is a measurement of: ``task``, the environment with its flavour, or its game's version and
client.
"""

import json
import math
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

from kpg_fast.errors import UsageError
from kpg_fast.store.files import write_aside, writing

# Ours -> PyMARL's (github.com/oxwhirl/pymarl and its descendants); `test_` marks greedy evaluation there.
PYMARL_NAMES = {
    "env_steps": "t_env",
    "episodes": "episode",
    "win_rate": "battle_won_mean",
    "length_mean": "ep_length_mean",
    "eval/win_rate": "test_battle_won_mean",
    "eval/return_mean": "test_return_mean",
    "eval/length_mean": "test_ep_length_mean",
}


class MetricsLog:
    """Appends to ``metrics.jsonl`` and, where TensorBoard is installed, to event files beside it.

    Args:
        directory: the run directory.
        updates: how many updates the run has behind it; lines of later ones (of a run that was killed between two
            checkpoints) and a last line that was cut off are dropped.
        task: what every line is a measurement of.
    """

    def __init__(self, directory: Path, updates: int, task: str) -> None:
        path = directory / "metrics.jsonl"
        kept = [line for line in read(path) if line["update"] <= updates]
        if updates and (not kept or kept[-1]["update"] < updates):
            end = f"ends at update {kept[-1]['update']:.0f}" if kept else "is empty or missing"
            warnings.warn(f"{path} {end}, the run's checkpoint is of update {updates}: lines were lost", stacklevel=2)
        self.last = kept[-1] if kept else {}
        """The newest line."""
        self._task = task
        write_aside(path, "".join(map(self._line, kept)))
        with writing(path):
            self._file = path.open("a", encoding="utf-8")
        self._events = _event_writer(directory / "tensorboard", self.last.get("env_steps", 0))

    def write(self, metrics: dict[str, float]) -> None:
        """Write one update's metrics; they hold at least ``update``, ``env_steps`` and ``seconds``."""
        pymarl = {theirs: metrics[ours] for ours, theirs in PYMARL_NAMES.items() if ours in metrics}
        self.last = metrics | pymarl
        with writing(Path(self._file.name)):
            self._file.write(self._line(self.last))
            self._file.flush()
        if self._events:
            for name, value in metrics.items():
                if math.isfinite(value):
                    self._events.add_scalar(name, value, metrics["env_steps"])

    def _line(self, metrics: dict[str, float]) -> str:
        # JSON has no NaN (a win rate of no episodes): null stands for it.
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        return json.dumps({"task": self._task} | finite, allow_nan=False) + "\n"

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._events:
            self._events.close()


def read(path: Path) -> list[dict[str, float]]:
    """The numbers of a ``metrics.jsonl``, oldest line first; null is read as NaN, a last line cut off is left out.

    Raises:
        UsageError: a line that is not JSON and not the last one, a value that is no number, or bytes that are not
            UTF-8.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: altered: {error}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise UsageError(f"{path}, line {number}: {error}") from error
        if not isinstance(values, dict) or not isinstance(values.get("update"), int | float):
            raise UsageError(f"{path}, line {number}: not the metrics of an update")
        values.pop("task", None)
        wrong = [name for name, value in values.items() if not isinstance(value, int | float | None)]
        if wrong:
            raise UsageError(f"{path}, line {number}: {wrong[0]} is not a number")
        records.append({name: math.nan if value is None else value for name, value in values.items()})
    return records


def _event_writer(directory: Path, env_steps: float) -> Any:
    """A TensorBoard writer that goes on after ``env_steps``, or ``None`` where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory), purge_step=int(env_steps) + 1 if env_steps else None)
