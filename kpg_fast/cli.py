"""``kpg-fast``: one function a command; the flags are its parameters or the fields of a configuration."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import tyro
from tyro.conf import OmitArgPrefixes, Positional, Suppress, arg

from kpg_fast.config import PRESETS, Algorithm, Config, KMappo
from kpg_fast.errors import EnvironmentFailure, UsageError, unknown_name

if TYPE_CHECKING:
    from kpg_fast.run import RunResult

T = TypeVar("T")
RunDir = Annotated[Positional[Path], arg(metavar="RUN_DIR")]
RunDirs = Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN_DIR...")]


@dataclass(frozen=True, kw_only=True)
class KMappoFlags(Config):
    """Train K-MAPPO; an environment is named family/scenario (see ``kpg-fast list``)."""

    algorithm: Suppress[Algorithm] = "k-mappo"
    env: Annotated[Positional[str], arg(metavar="ENV")] = "smax/2s3z"
    seed: Suppress[int] = 0
    seeds: Annotated[tuple[int, ...], arg(metavar="SEED...")] = (0,)
    """Trained one after another, each in its own run directory."""
    settings: Annotated[KMappo, OmitArgPrefixes] = field(default_factory=KMappo)

    def configs(self) -> list[Config]:
        """One configuration a seed, checked."""
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"seeds {self.seeds}: name at least one, and none twice")
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(Config)}
        configs = [Config(**values | {"seed": seed}) for seed in self.seeds]
        for config in configs:
            config.check()
        return configs


def train_k_mappo(arguments: list[str]) -> int:
    """Train K-MAPPO, one run directory a seed."""
    from kpg_fast.run_directory import check_new, default_path

    preset = _given(arguments, "preset") or Config.preset
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    default = KMappoFlags(env=tyro.MISSING, preset=preset, settings=PRESETS[preset])  # type: ignore[arg-type]
    configs = _parse("train k-mappo", KMappoFlags, arguments, default).configs()
    base = Path(configs[0].run_dir) if configs[0].run_dir else default_path(configs[0])
    check_new(base)
    if len(configs) == 1:
        _train_seeds(configs, [base])
    elif _train_seeds(configs, [base / f"seed{config.seed}" for config in configs]):
        plot((base,), base / "plot")
    return 0


def _train_seeds(configs: list[Config], paths: list[Path]) -> bool:
    """Train one after another; false if Ctrl-C or SIGTERM came between."""
    from kpg_fast.progress import for_this_terminal
    from kpg_fast.run import train

    for done, (config, path) in enumerate(zip(configs, paths, strict=True), start=1):
        result = train(dataclasses.replace(config, run_dir=str(path)), for_this_terminal())
        _say_outcome(result)
        if not result.finished:
            if configs[done:]:
                print("not started: seeds " + " ".join(str(config.seed) for config in configs[done:]))
            return False
    return True


def train_toy(arguments: list[str]) -> int:
    """Draw what K levels do in a game with exact gradients."""
    from kpg_fast.run_directory import new_path
    from kpg_fast.toy import ToyOptions, train_toy

    @dataclass(frozen=True, kw_only=True)
    class ToyFlags(ToyOptions):
        __doc__ = ToyOptions.__doc__
        env: Annotated[Positional[str], arg(metavar="ENV")] = "toy/meetup"
        run_dir: Path | None = None
        """Where the run is kept; by default a new directory under ``runs/``."""

    flags = _parse("train kpg", ToyFlags, arguments)
    options = ToyOptions(**{f.name: getattr(flags, f.name) for f in dataclasses.fields(ToyOptions)})
    run_dir = flags.run_dir or new_path(f"kpg_K{flags.levels}_{flags.env}")
    for name, value in train_toy(options, run_dir).items():
        print(f"{name} {value:.6g}")
    print(f"run directory {run_dir}")
    return 0


TRAIN: dict[str, Callable[[list[str]], int]] = {"k-mappo": train_k_mappo, "kpg": train_toy}


def train(arguments: list[str]) -> int:
    """Train an algorithm on an environment, one run directory a seed."""
    return _dispatch("kpg-fast train", "algorithm", TRAIN, arguments)


def resume(run_dir: RunDir) -> int:
    """Go on with a run that was stopped or killed.

    Args:
        run_dir: the run.
    """
    from kpg_fast import run
    from kpg_fast.progress import for_this_terminal

    _say_outcome(run.resume(run_dir, for_this_terminal()))
    return 0


def evaluate(run_dir: RunDir, episodes: int = 512, video: Path | None = None) -> int:
    """Play greedy episodes with the policies of a run.

    Args:
        run_dir: a run, or one of its checkpoints (RUN_DIR/checkpoints/best).
        episodes: how many are played.
        video: write one more episode to this GIF or MP4 file.
    """
    from kpg_fast import run

    metrics = run.evaluate(run_dir, episodes)
    print("  ".join(f"{name} {value:.5g}" for name, value in metrics.items()))
    if video:
        from kpg_fast.replay import record

        print(f"video {record(run_dir, video)}")
    return 0


def plot(run_dirs: RunDirs, out: Path = Path("plot")) -> int:
    """Draw win rate and return of runs; the seeds of one configuration are one curve with its interval.

    Args:
        run_dirs: runs, or directories that hold some.
        out: the files are named OUT.png and OUT.svg.
    """
    from kpg_fast.plot import draw
    from kpg_fast.records import find_runs

    print("plot " + " ".join(str(file) for file in draw(find_runs(run_dirs), out)))
    return 0


def export(run_dirs: RunDirs, out: Path = Path("export")) -> int:
    """Write runs for other tools: OUT/marl_eval.json and OUT/metrics.csv.

    Args:
        run_dirs: runs, or directories that hold some.
        out: a directory; files of these names in it are replaced.
    """
    from kpg_fast.export import marl_eval, table
    from kpg_fast.files import write_aside, writing
    from kpg_fast.records import find_runs

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
    from kpg_fast.doctor import environments

    for name, function in TRAIN.items():
        print(f"algorithm {name}: {_summary(function)}")
    plain = KMappo()
    for name, settings in PRESETS.items():
        values = dataclasses.asdict(settings).items()
        print(
            f"preset {name}: " + ", ".join(f"{k} {v}" for k, v in values if name == "jaxmarl" or v != getattr(plain, k))
        )
    for family, scenarios in environments().items():
        print(f"environments {family}/: {scenarios}")
    return 0


def doctor() -> int:
    """What is installed, which backends work and why not the others, and what this machine can do."""
    from kpg_fast.doctor import examine

    healthy = True
    for finding in examine():
        print(finding)
        healthy &= finding.ok or not finding.needed
    return 0 if healthy else 1


def bench(arguments: list[str]) -> int:
    """Run bench/run.py of the source checkout, with its arguments."""
    from kpg_fast.provenance import checkout

    root = checkout()
    script = root / "bench" / "run.py" if root else None
    if script is None or not script.exists():
        raise UsageError("bench/run.py is part of the source checkout, not of the installed package")
    return subprocess.call([sys.executable, str(script), *arguments])


def _parsed(name: str, function: Callable[..., int]) -> Callable[[list[str]], int]:
    def command(arguments: list[str]) -> int:
        return _parse(name, function, arguments)

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
        from kpg_fast.provenance import versions

        print(versions()["kpg_fast"])
        return 0
    print(f"usage: {prog} {kind.upper()} ...   (each has its own --help)\n")
    for entry, function in table.items():
        print(f"  {entry:9} {_summary(function)}")
    return 0 if name else 2


def _parse(name: str, target: Callable[..., T], arguments: list[str], default: T | None = None) -> T:
    """Call or build ``target`` with its flags; a flag or value that is not known ends with exit code 2."""
    for field_ in _fields(target):
        value = _given(arguments, field_.name.replace("_", "-"))
        if get_origin(field_.type) is Literal and value is not None and value not in get_args(field_.type):
            raise unknown_name(field_.name, value, get_args(field_.type))
    options: dict[str, Any] = {} if default is None else {"default": default}
    parsed: T = tyro.cli(target, args=arguments, prog=f"kpg-fast {name}", **options)
    return parsed


def _fields(target: Any) -> list[Any]:
    """The fields of a configuration and of the settings in it; a function has none."""
    own = dataclasses.fields(target) if dataclasses.is_dataclass(target) else ()
    return [*own, *(dataclasses.fields(KMappo) if any(f.name == "settings" for f in own) else ())]


def _given(arguments: list[str], flag: str) -> str | None:
    """The value that ``--flag value`` or ``--flag=value`` gives last."""
    found = None
    for argument, after in zip_longest(arguments, arguments[1:]):
        name, equals, value = argument.partition("=")
        if name == f"--{flag}":
            found = value if equals else after
    return found


def _summary(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").partition("\n")[0].rstrip(".")


def _say_outcome(result: "RunResult") -> None:
    if not result.finished:
        print(f"stopped after update {result.updates}; to go on: kpg-fast resume {result.run_dir}")
        return
    greedy = {name.removeprefix("eval/"): v for name, v in result.metrics.items() if name.startswith("eval/")}
    print("greedy evaluation: " + ", ".join(f"{name} {value:.4g}" for name, value in greedy.items()))
    print(f"run directory {result.run_dir}")
    drawn = result.run_dir / "plot.png"
    print(f"plot {drawn}" if drawn.exists() else "no plot: pip install 'kpg_fast[plot]', then kpg-fast plot")
