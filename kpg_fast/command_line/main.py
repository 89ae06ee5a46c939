"""``kpg-fast``: one function a command; the flags are its parameters or the fields of a configuration."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from tyro.conf import Positional, arg

from kpg_fast.command_line.train import TRAIN, draw_runs, finish_batch, parse, say_outcome
from kpg_fast.config import Algorithm, presets_of, run_defaults
from kpg_fast.errors import EnvironmentFailure, UsageError, unknown_name

RunDir = Annotated[Positional[Path], arg(metavar="RUN_DIR")]
RunDirs = Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN_DIR...")]


def train(arguments: list[str]) -> int:
    """Train an algorithm on an environment, one run directory a seed."""
    return _dispatch("kpg-fast train", "algorithm", TRAIN, arguments)


def resume(run_dir: RunDir, total_steps: int | None = None) -> int:
    """Go on with a run, or a batch of seeds, that was stopped or killed.

    Args:
        run_dir: the run, or the directory of the batch.
        total_steps: environment steps the run shall have in the end, in place of those it was made for.
    """
    from kpg_fast.runs import run
    from kpg_fast.runs.batch import is_batch
    from kpg_fast.runs.progress import for_this_terminal

    if is_batch(run_dir):
        if total_steps is not None:
            raise UsageError(f"--total-steps takes a run at a time, not the batch {run_dir}: name a seed's directory")
        finish_batch(run_dir)
        return 0
    say_outcome(run.resume(run_dir, for_this_terminal(), total_steps))
    return 0


def evaluate(run_dir: RunDir, episodes: int = 512, video: Path | None = None) -> int:
    """Play greedy episodes with the policies of a run.

    Args:
        run_dir: a run, or one of its checkpoints (RUN_DIR/checkpoints/best).
        episodes: how many are played.
        video: write one more episode to this GIF or MP4 file.
    """
    from kpg_fast.runs import replay, run
    from kpg_fast.runs.video import check_target

    if video:
        check_target(video)
    metrics = run.evaluate(run_dir, episodes)
    print("  ".join(f"{name} {value:.5g}" for name, value in metrics.items()))
    if video:
        print(f"video {replay.record(run_dir, video)}")
    return 0


def plot(run_dirs: RunDirs, out: Path = Path("plot")) -> int:
    """Draw win rate and return of runs; the seeds of one configuration are one curve with its interval.

    Args:
        run_dirs: runs, or directories that hold some.
        out: the files are named OUT.png and OUT.svg.
    """
    draw_runs(run_dirs, out)
    return 0


def export(run_dirs: RunDirs, out: Path = Path("export")) -> int:
    """Write runs for other tools: OUT/marl_eval.json and OUT/metrics.csv.

    Args:
        run_dirs: runs, or directories that hold some.
        out: a directory; files of these names in it are replaced.
    """
    from kpg_fast.runs.export import marl_eval, table
    from kpg_fast.runs.records import find_runs
    from kpg_fast.store.files import write_aside, writing

    runs = find_runs(run_dirs)
    structure, unfinished = marl_eval(runs)
    for run in unfinished:
        print(f"not in marl_eval.json, because it is not finished: {run.path}", file=sys.stderr)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for name, text in (("marl_eval.json", json.dumps(structure, indent=2) + "\n"), ("metrics.csv", table(runs))):
        write_aside(out / name, text)
        print(f"wrote {out / name}")
    return 0


def show_list() -> int:
    """Algorithms, presets with their numbers, and environments."""
    from kpg_fast.command_line.doctor import environments

    for name, function in TRAIN.items():
        print(f"{name}: {_summary(function)}")
        for preset, settings in presets_of(name).items() if name in get_args(Algorithm) else ():
            values = run_defaults(name, preset) | dataclasses.asdict(settings)
            print(f"  preset {preset}: " + ", ".join(f"{key} {value}" for key, value in values.items()))
    for family, scenarios in environments().items():
        print(f"environments {family}/: {scenarios}")
    return 0


def doctor(smac_parity: bool = False) -> int:
    """What is installed, which backends work and why not the others, and what this machine can do.

    Args:
        smac_parity: instead, play the same games of the installed StarCraft II through both clients and compare.
    """
    from kpg_fast.command_line.doctor import compare_smac_clients, examine

    healthy = True
    for finding in compare_smac_clients() if smac_parity else examine():
        print(finding)
        healthy &= finding.ok or not (finding.needed or smac_parity)
    return 0 if healthy else 1


def bench(arguments: list[str]) -> int:
    """Run bench/run.py of the source checkout, with its arguments."""
    from kpg_fast.runs.provenance import checkout

    root = checkout()
    script = root / "bench" / "run.py" if root else None
    if script is None or not script.exists():
        raise UsageError("bench/run.py is part of the source checkout, not of the installed package")
    return subprocess.call([sys.executable, str(script), *arguments])


def _parsed(name: str, function: Callable[..., int]) -> Callable[[list[str]], int]:
    def command(arguments: list[str]) -> int:
        return parse(name, function, arguments)

    command.__doc__ = function.__doc__
    return command


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "resume": _parsed("resume", resume),
    "eval": _parsed("eval", evaluate),
    "plot": _parsed("plot", plot),
    "export": _parsed("export", export),
    "list": _parsed("list", show_list),
    "doctor": _parsed("doctor", doctor),
    "bench": bench,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name); returns the exit code: 0, 2 for bad input, 1 for what failed."""
    try:
        return _dispatch("kpg-fast", "command", COMMANDS, list(sys.argv[1:] if argv is None else argv))
    except UsageError as error:
        print(f"kpg-fast: error: {error}", file=sys.stderr)
        return 2
    except EnvironmentFailure as error:
        print(f"kpg-fast: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # who read our output has left: kpg-fast list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        print(f"kpg-fast: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kpg-fast: interrupted", file=sys.stderr)
        return 130
    except SystemExit as stop:  # how tyro ends after --help (0) and after a flag it cannot read (2)
        return stop.code if isinstance(stop.code, int) else 2


def _dispatch(prog: str, kind: str, table: dict[str, Callable[[list[str]], int]], arguments: list[str]) -> int:
    """Call the function named by the first argument with the rest."""
    name, *rest = arguments or [""]
    if name in table:
        return table[name](rest)
    if name not in ("", "-h", "--help", "--version"):
        raise unknown_name(kind, name, table)
    if name == "--version":
        from kpg_fast.runs.provenance import versions

        print(versions()["kpg_fast"])
        return 0
    print(f"usage: {prog} {kind.upper()} ...   (each has its own --help)\n")
    for entry, function in table.items():
        print(f"  {entry:9} {_summary(function)}")
    return 0 if name else 2


def _summary(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").partition("\n")[0].rstrip(".")
