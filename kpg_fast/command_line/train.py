"""``kpg-fast train``: an algorithm's flags are the fields of its configuration, with the defaults of the preset."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import tyro
from tyro.conf import OmitArgPrefixes, Positional, Suppress, arg

from kpg_fast.config import Algorithm, Config
from kpg_fast.envs import families
from kpg_fast.errors import UsageError, unknown_name
from kpg_fast.k_mappo_settings import KMappo
from kpg_fast.off_policy.settings import OffPolicy

if TYPE_CHECKING:
    from kpg_fast.runs.run import RunResult

T = TypeVar("T")

_MOST_SEEDS = 1000


@dataclass(frozen=True, kw_only=True)
class TrainFlags(Config):
    """The flags of a configuration; what is shown as default is that of the preset."""

    algorithm: Suppress[Algorithm] = "k-mappo"
    env: Annotated[Positional[str], arg(metavar="ENV")] = "smax/2s3z"
    seed: Suppress[int] = 0
    seeds: Annotated[tuple[int, ...], arg(metavar="SEED...")] = (0,)
    """Each in its own run directory; ``0..9`` is short for 0 to 9."""
    batch_seeds: bool = False
    """k-mappo only: train all seeds at once, each as if it were alone; otherwise one after another."""
    client: Literal["smac", "native"] | None = None
    """smac/ only: play through the libraries smac and smacv2 (the default), or through our own client."""
    sync: bool = False
    """smac/ only: wait for lost games, so that the same seed gives the same run."""
    bootstrap_time_limit: bool = False
    """smac/ only: bootstrap the value at the time limit, where published results call it the end."""

    def configs(self) -> list[Config]:
        """One configuration a seed, checked."""
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"seeds {self.seeds}: name at least one, and none twice")
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(Config)}
        values["env_options"] += self._short_options()
        configs = [Config(**values | {"seed": seed}) for seed in self.seeds]
        for config in configs:
            config.check()
        return configs

    def _short_options(self) -> tuple[str, ...]:
        """The options of an environment that have flags of their own."""
        given = {"client": self.client, "sync": self.sync, "bootstrap_time_limit": self.bootstrap_time_limit}
        return tuple(f"{name}={value}" for name, value in given.items() if value)


@dataclass(frozen=True, kw_only=True)
class KMappoFlags(TrainFlags):
    """Train K-MAPPO; an environment is named family/scenario (see ``kpg-fast list``)."""

    settings: Annotated[KMappo, OmitArgPrefixes] = field(default_factory=KMappo)


@dataclass(frozen=True, kw_only=True)
class OffPolicyFlags(TrainFlags):
    """Train K-MADDPG or K-FACMAC; an environment is named family/scenario (see ``kpg-fast list``)."""

    settings: Annotated[OffPolicy, OmitArgPrefixes] = field(default_factory=OffPolicy)


def _train_with(algorithm: str, flags: type[TrainFlags], arguments: list[str]) -> int:
    arguments = list(_without_ranges(arguments))
    env = next((a for a in arguments if a.partition("/")[0] in families()), "")
    parsed = _parse_with_defaults_of(env, algorithm, flags, arguments)
    if parsed.env != env:  # what looked like the environment was the value of a flag
        parsed = _parse_with_defaults_of(parsed.env, algorithm, flags, arguments)
    return _train(parsed.configs(), parsed.batch_seeds)


def _parse_with_defaults_of(env: str, algorithm: str, flags: type[TrainFlags], arguments: list[str]) -> TrainFlags:
    preset = given(arguments, "preset")
    default = Config.make(algorithm, env, **({} if preset is None else {"preset": preset}))
    values = {f.name: getattr(default, f.name) for f in dataclasses.fields(Config)}
    return parse(f"train {algorithm}", flags, arguments, flags(**values | {"env": tyro.MISSING}))


def train_k_mappo(arguments: list[str]) -> int:
    """MAPPO with K levels, on-policy."""
    return _train_with("k-mappo", KMappoFlags, arguments)


def train_k_maddpg(arguments: list[str]) -> int:
    """MADDPG with K levels, off-policy, a critic an agent."""
    return _train_with("k-maddpg", OffPolicyFlags, arguments)


def train_k_facmac(arguments: list[str]) -> int:
    """FACMAC with K levels, off-policy, a factored critic."""
    return _train_with("k-facmac", OffPolicyFlags, arguments)


def _without_ranges(arguments: Sequence[str]) -> Iterator[str]:
    """The same with every range of seeds (``--seeds 0..4 7``) written out."""
    of_seeds = False
    for argument in arguments:
        if argument.startswith("--"):
            of_seeds = argument == "--seeds" or argument.startswith("--seeds=")
            if argument.startswith("--seeds=") and ".." in argument:
                yield "--seeds"
                argument = argument.removeprefix("--seeds=")
        first, dots, last = argument.partition("..")
        if of_seeds and dots and first.isdecimal() and last.isdecimal():
            if int(last) < int(first) or int(last) - int(first) >= _MOST_SEEDS:
                raise UsageError(f"seeds {argument}: a range goes up, over at most {_MOST_SEEDS} seeds")
            yield from map(str, range(int(first), int(last) + 1))
        else:
            yield argument


def _train(configs: list[Config], batch_seeds: bool) -> int:
    """Train the seeds of one configuration, and draw them together."""
    from kpg_fast.runs.batch import path_of
    from kpg_fast.runs.directory import check_new, default_path

    base = Path(configs[0].run_dir) if configs[0].run_dir else default_path(configs[0])
    check_new(base)
    if len(configs) == 1:
        _train_seeds(configs, [base])
    elif batch_seeds:
        finish_batch(base, configs)
    elif _train_seeds(configs, [path_of(base, config.seed) for config in configs]):
        draw_runs([base], base / "plot")
    return 0


def finish_batch(base: Path, configs: Sequence[Config] = ()) -> None:
    """Train the seeds of ``configs`` as one batch, or go on with the batch in ``base`` if none are given."""
    from kpg_fast.runs.batch import resume_batch, train_batch
    from kpg_fast.runs.progress import for_this_terminal

    progress = for_this_terminal()
    results = train_batch(configs, base, progress) if configs else resume_batch(base, progress)
    if all(result.finished for result in results):
        for result in results:
            say_outcome(result)
        draw_runs([base], base / "plot")
    else:
        print(f"stopped after update {results[-1].updates}; to go on: kpg-fast resume {base}")


def draw_runs(run_dirs: Sequence[Path], out: Path) -> None:
    """Draw runs to OUT.png and OUT.svg and say so."""
    from kpg_fast.runs.plot import draw
    from kpg_fast.runs.records import find_runs

    print("plot " + " ".join(str(file) for file in draw(find_runs(run_dirs), out)))


def _train_seeds(configs: list[Config], paths: list[Path]) -> bool:
    """Train one after another; false if Ctrl-C or SIGTERM came between."""
    from kpg_fast.runs.progress import for_this_terminal
    from kpg_fast.runs.run import train

    for done, (config, path) in enumerate(zip(configs, paths, strict=True), start=1):
        result = train(dataclasses.replace(config, run_dir=str(path)), for_this_terminal())
        say_outcome(result)
        if not result.finished:
            if configs[done:]:
                print("not started: seeds " + " ".join(str(config.seed) for config in configs[done:]))
            return False
    return True


def train_toy(arguments: list[str]) -> int:
    """What K levels do in a game with exact gradients, drawn."""
    from kpg_fast.runs.directory import new_path
    from kpg_fast.toy.train import ToyOptions, train_toy

    @dataclass(frozen=True, kw_only=True)
    class ToyFlags(ToyOptions):
        __doc__ = ToyOptions.__doc__
        env: Annotated[Positional[str], arg(metavar="ENV")] = "toy/meetup"
        run_dir: Path | None = None
        """Where the run is kept; by default a new directory under ``runs/``."""

    flags = parse("train kpg", ToyFlags, arguments)
    options = ToyOptions(**{f.name: getattr(flags, f.name) for f in dataclasses.fields(ToyOptions)})
    run_dir = flags.run_dir or new_path(f"kpg_K{flags.levels}_{flags.env}")
    for name, value in train_toy(options, run_dir).items():
        print(f"{name} {value:.6g}")
    print(f"run directory {run_dir}")
    return 0


TRAIN: dict[str, Callable[[list[str]], int]] = {
    "k-mappo": train_k_mappo,
    "k-maddpg": train_k_maddpg,
    "k-facmac": train_k_facmac,
    "kpg": train_toy,
}


def parse(name: str, target: Callable[..., T], arguments: list[str], default: T | None = None) -> T:
    """Call or build ``target`` with its flags; a flag or value that is not known ends with exit code 2."""
    for part in (default, getattr(default, "settings", None)):
        for f in dataclasses.fields(part) if dataclasses.is_dataclass(part) else ():
            value = given(arguments, f.name.replace("_", "-"))
            if get_origin(f.type) is Literal and value is not None and value not in get_args(f.type):
                raise unknown_name(f.name, value, get_args(f.type))
    options: dict[str, Any] = {} if default is None else {"default": default}
    parsed: T = tyro.cli(target, args=arguments, prog=f"kpg-fast {name}", **options)
    return parsed


def given(arguments: list[str], flag: str) -> str | None:
    """The value that ``--flag value`` or ``--flag=value`` gives last."""
    found = None
    for argument, after in zip_longest(arguments, arguments[1:]):
        name, equals, value = argument.partition("=")
        if name == f"--{flag}":
            found = value if equals else after
    return found


def say_outcome(result: "RunResult") -> None:
    """Print what came of a run, or how to go on with it."""
    if not result.finished:
        print(f"stopped after update {result.updates}; to go on: kpg-fast resume {result.run_dir}")
        return
    greedy = {name.removeprefix("eval/"): v for name, v in result.metrics.items() if name.startswith("eval/")}
    print("greedy evaluation: " + ", ".join(f"{name} {value:.4g}" for name, value in greedy.items()))
    print(f"run directory {result.run_dir}")
    drawn = result.run_dir / "plot.png"
    print(f"plot {drawn}" if drawn.exists() else "no plot: pip install 'kpg_fast[plot]', then kpg-fast plot")
