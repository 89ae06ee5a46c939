"""The directory of a run: what is in it, how it comes to be, and who may write to it.

config.json          the resolved configuration
provenance.json      versions, commit, hardware, command, facts of the environment, also of every stretch resumed
metrics.jsonl        one line an update; tensorboard/ holds the same as event files
checkpoints/last     the state an exact resume starts from
checkpoints/best     the state of the best greedy evaluation
result.json          the final evaluation with what it is a result of
marl_eval.json       the same for marl-eval
plot.png, plot.svg   win rate and return over environment steps and wall-clock
"""

import dataclasses
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from kpg_fast.config import Config
from kpg_fast.errors import UsageError
from kpg_fast.runs import provenance
from kpg_fast.store.files import write_aside, writing
from kpg_fast.store.snapshot import BackgroundCheckpoint


@dataclass
class RunDirectory:
    """A run directory that this process alone writes to."""

    path: Path
    lock: int
    """File descriptor of the directory; holds the lock until it is closed."""
    writer: BackgroundCheckpoint = field(default_factory=BackgroundCheckpoint)

    @classmethod
    def create(cls, path: Path, config: Config, facts: dict[str, str]) -> "RunDirectory":
        """Make the directory with its configuration and provenance, whole or not at all.

        Raises:
            UsageError: ``path`` exists, or cannot be written.
        """
        with making(path, {"config.json": config.to_dict(), "provenance.json": provenance_of(facts)}) as aside:
            (aside / "checkpoints").mkdir()
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Open an existing run directory for writing.

        Raises:
            UsageError: no run directory, one without provenance, or another process writes to it.
        """
        if not (path / "config.json").is_file():
            raise UsageError(f"{path} is not a run directory: it has no config.json")
        read_provenance(path)  # which the run's result will be written from
        with writing(path):
            lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise UsageError(f"another process is writing to {path}") from error
        return cls(path, lock)

    @property
    def last(self) -> Path:
        """The checkpoint that a resume starts from; there may be none yet."""
        return self.path / "checkpoints" / "last"

    def close(self) -> None:
        """Wait until the last checkpoint is on disk, then let others write."""
        try:
            self.writer.wait()
        finally:
            os.close(self.lock)

    def save(self, name: str, tensors: dict[str, Any], meta: dict[str, Any]) -> None:
        """Write ``checkpoints/<name>`` while the run goes on; the one it replaces stays whole until the new one is."""
        self.writer.wait()
        self.writer.start(self.path / "checkpoints" / name, tensors, meta)

    def note_resumed(self, facts: dict[str, str], updates: int) -> None:
        """Add to the provenance what the run comes from after ``updates`` updates."""
        kept = read_provenance(self.path)
        kept.setdefault("resumed", []).append({"after_update": updates} | provenance_of(facts))
        self.write_json("provenance.json", kept)

    def write_json(self, name: str, values: Any) -> None:
        """Write a JSON file, whole or not at all."""
        write_aside(self.path / name, _json(values))


@contextmanager
def making(path: Path, files: dict[str, Any]) -> Iterator[Path]:
    """A directory to fill beside ``path``, which has its name when the block is left and is gone if by an error.

    The JSON ``files`` are in it.

    Raises:
        UsageError: ``path`` exists, or cannot be written.
    """
    check_new(path)
    aside = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with writing(path):
            aside.mkdir(parents=True)
        for name, values in files.items():
            write_aside(aside / name, _json(values))
        with writing(path):
            yield aside
            aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def default_path(config: Config) -> Path:
    """Where a run is kept if nothing else is said."""
    return new_path(f"{config.algorithm}_K{config.levels}_{config.env}")


def new_path(what: str) -> Path:
    """``runs/<what>_<when>``, one that does not exist yet."""
    path = Path("runs") / f"{what.replace('/', '-')}_{time.strftime('%Y%m%d-%H%M%S')}"
    copies = (path.with_name(f"{path.name}-{copy}") for copy in count(2))
    return path if not path.exists() else next(copy for copy in copies if not copy.exists())


def check_new(path: Path) -> None:
    """Raise ``UsageError`` if a run cannot be started in ``path``: it exists, or nothing can be created there."""
    with writing(path):
        exists = path.exists() or path.is_symlink()
        parent = next(p for p in path.absolute().parents if p.exists())
    if exists:
        resume = f"; to go on with it: kpg-fast resume {path}" if (path / "config.json").is_file() else ""
        raise UsageError(f"run directory {path} exists{resume}")
    if not parent.is_dir():
        raise UsageError(f"cannot write {path}: {parent} is not a directory")
    if not os.access(parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise UsageError(f"cannot write {path}: no write permission in {parent}")


def read_config(path: Path) -> Config:
    """The configuration in ``path/config.json``, of a run that is kept in ``path`` now.

    Raises:
        UsageError: no run directory, or a file that is damaged or of another version.
    """
    file = path / "config.json"
    if not file.is_file():
        raise UsageError(f"{path} is not a run directory: it has no config.json")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    if isinstance(values, dict) and values.get("algorithm") == "kpg":
        raise UsageError(f"{path} is a run on a toy game: finished when it was made, and without a checkpoint")
    return dataclasses.replace(to_config(values, file), run_dir=str(path))


def read_provenance(path: Path) -> dict[str, Any]:
    """What is in ``path/provenance.json``; ``UsageError`` if it is missing or damaged."""
    file = path / "provenance.json"
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values.get("facts"), dict):
            raise ValueError("it names no facts of the environment")
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    return values


def to_config(values: Any, source: Path) -> Config:
    """The configuration that ``Config.to_dict`` gave; ``UsageError`` if it is damaged or of another version."""
    try:
        return Config.from_dict(values)
    except UsageError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"the configuration in {source} cannot be read: {error}") from error


def provenance_of(facts: dict[str, str]) -> dict[str, Any]:
    """What the numbers of a run that starts now come from; ``facts`` are the environment's."""
    return {
        "facts": facts,
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "hardware": provenance.hardware(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _json(values: Any) -> str:
    return json.dumps(values, indent=2) + "\n"
