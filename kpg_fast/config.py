"""What a run is: a frozen dataclass, built from presets, and checks that name what is wrong."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from kpg_fast.checks import at_least, check_types
from kpg_fast.errors import UsageError, unknown_name
from kpg_fast.k_mappo_settings import MAMUJOCO_RUN, PRESETS, KMappo, of_task
from kpg_fast.off_policy.settings import FACMAC_PRESETS, MADDPG_PRESETS, RUN_DEFAULTS, OffPolicy

Algorithm = Literal["k-mappo", "k-maddpg", "k-facmac"]
Preset = Literal["jaxmarl", "kpg", "mamujoco", "smac", "smax"]
Precision = Literal["fp32", "tf32", "mixed-lookahead", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run: one algorithm, one environment, one seed.

    ``Config.make("k-mappo", "smax/2s3z", levels=2, preset="kpg", lr=1e-3)`` takes the fields of ``settings`` too.
    """

    algorithm: Algorithm = "k-mappo"
    env: str = "smax/2s3z"
    """``family/scenario``; see ``kpg-fast list``."""
    levels: int = 2
    """K: 1 is the base algorithm."""
    seed: int = 0
    preset: Preset = "jaxmarl"
    """Where the settings that are not given come from; see ``kpg-fast list``."""
    total_steps: int = 1_000_000
    """Environment steps of the whole run, rounded down to whole rollouts."""
    env_options: tuple[str, ...] = ()
    """Options of the environment as ``name=value``, e.g. ``flavour=jaxmarl attack_mode=random``."""
    precision: Precision = "fp32"
    """Of the products: float32; bf16 factors summed in float32 in the levels below K, which only make M_i, and
    float32 in everything that is committed; or bf16 everywhere (parameters and optimiser stay float32). ``tf32``, on a
    card only, is the second with tf32 factors in what is committed. Off-policy: float32, bf16 factors in the middle
    layers, or on a card tf32 factors in all layers of feed-forward actors and critics."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where everything runs but greedy evaluations, which the CPU plays, and environments: on ``cuda`` all but
    k-mappo's smax/ step on the CPU."""
    graphs: bool = True
    """On ``cuda``, capture an iteration (off-policy: a minibatch's update) once and replay it; without, every operation
    is queued by itself, with the same numbers and what a debugger needs."""
    run_dir: str | None = None
    """Where the run is kept; by default a new directory under ``runs/``."""
    eval_episodes: int = 512
    """Greedy episodes of the evaluation at the end."""
    eval_every: int = 0
    """Evaluate every so many environment steps as well; 0 only at the end."""
    eval_every_episodes: int = 128
    """Episodes of each of those."""
    checkpoint_every: int = 50
    """Updates between checkpoints; one is always written at the end and on Ctrl-C."""
    debug_drift: bool = False
    """Verify after every level that theta and the optimiser state are untouched."""
    settings: KMappo | OffPolicy = field(default_factory=KMappo)

    @classmethod
    def make(cls, algorithm: str = "k-mappo", env: str = "smax/2s3z", **values: Any) -> "Config":
        """Build a configuration from a preset and single values of either level.

        Raises:
            UsageError: an unknown name or a value out of its range, with what is allowed.
        """
        if not isinstance(env, str):
            raise UsageError(f"env = {env!r}: must be text, as smax/2s3z")
        values = {name: os.fspath(v) if isinstance(v, os.PathLike) else v for name, v in values.items()}
        if isinstance(values.get("env_options"), list):
            values["env_options"] = tuple(values["env_options"])
        preset = values.pop("preset", None) or default_preset(algorithm, env)
        presets = presets_of(algorithm)
        if preset not in presets:
            raise unknown_name("preset", str(preset), presets)
        own = {f.name for f in dataclasses.fields(cls)} - {"settings"}
        of_settings = {f.name for f in dataclasses.fields(presets[preset])}
        for name in values:
            if name not in own | of_settings:
                raise unknown_name("setting", name, own | of_settings)
        of_the_task = of_task(preset, env) if algorithm == "k-mappo" else {}
        given = of_the_task | {k: v for k, v in values.items() if k in of_settings}
        settings = dataclasses.replace(presets[preset], **given)
        config = cls(
            algorithm=cast(Algorithm, algorithm),
            env=env,
            preset=cast(Preset, preset),
            settings=settings,
            **run_defaults(algorithm, preset, env) | {k: v for k, v in values.items() if k in own},
        )
        config.check()
        return config

    def check(self) -> None:
        """Raise ``UsageError`` for the first value that cannot be trained with."""
        check_types(self)
        self.options()
        at_least(self, 1, "levels", "total_steps", "eval_episodes", "eval_every_episodes", "checkpoint_every")
        at_least(self, 0, "seed", "eval_every")
        if self.seed >= 2**32:
            raise UsageError(f"seed = {self.seed}: must be below 2**32 = {2**32}")
        if self.preset not in presets_of(self.algorithm):
            raise unknown_name("preset", self.preset, presets_of(self.algorithm))
        self._check_device()
        s = self.settings
        s.check()
        if isinstance(s, OffPolicy):
            allowed = ["fp32"] if s.recurrent else ["fp32", "bf16", *(["tf32"] if self.device == "cuda" else [])]
            if self.precision not in allowed:
                agents = "recurrent" if s.recurrent else "feed-forward"
                raise UsageError(
                    f"precision = {self.precision!r}: {self.algorithm} with {agents} agents runs in "
                    f"{' or '.join(allowed)} only"
                )
        if self.total_steps < s.num_envs * s.num_steps:
            raise UsageError(
                f"total_steps = {self.total_steps} is less than one rollout of num_envs * num_steps = "
                f"{s.num_envs * s.num_steps}"
            )

    def _check_device(self) -> None:
        if self.device == "cpu":
            if self.precision == "tf32":
                raise UsageError("precision = 'tf32': only a card has it (device cuda); see mixed-lookahead and bf16")
            return
        if not self.env.startswith(("smax/", "mamujoco/", "smac/")):
            raise UsageError(
                f"device = 'cuda': {self.algorithm} on {self.env} trains on the cpu; on smax/, mamujoco/ and smac/ it "
                "trains on a card, too"
            )
        if isinstance(self.settings, OffPolicy) and self.settings.replay_dir is not None:
            raise UsageError(
                "replay_dir: on a card the replay is in the card's memory; leave it out, and lower buffer_size if it "
                "does not fit"
            )
        if self.debug_drift and self.graphs:
            raise UsageError("debug_drift looks at every level, which a captured iteration cannot: add --no-graphs")

    @property
    def num_updates(self) -> int:
        """Rollouts, and so updates, of the whole run."""
        return self.total_steps // (self.settings.num_envs * self.settings.num_steps)

    @property
    def forward_precision(self) -> str:
        """Of the products of passes through the networks, and of the gradients that are committed."""
        return self.precision if self.precision in ("bf16", "tf32") else "fp32"

    @property
    def k_mappo(self) -> KMappo:
        """The settings, of K-MAPPO."""
        assert isinstance(self.settings, KMappo)
        return self.settings

    @property
    def off_policy(self) -> OffPolicy:
        """The settings, of K-MADDPG or K-FACMAC."""
        assert isinstance(self.settings, OffPolicy)
        return self.settings

    def options(self) -> dict[str, Any]:
        """``env_options`` as keyword arguments: numbers and booleans are read as such, versions (4.10) as text."""
        parsed: dict[str, Any] = {}
        for item in self.env_options:
            name, equals, value = item.partition("=")
            if not equals or not name:
                raise UsageError(f"env option {item!r} is not of the form name=value")
            if name in _NOT_OPTIONS:
                raise UsageError(f"env option {item!r}: {_NOT_OPTIONS[name]}")
            if name in parsed:
                raise UsageError(f"env option {name!r} is given twice")
            parsed[name] = value if name.endswith("version") else _parse(value)
        return parsed

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; :meth:`from_dict` reads them back."""
        return dataclasses.asdict(self)

    def flat(self) -> dict[str, Any]:
        """The plain values with those of ``settings`` beside the run's own."""
        values = self.to_dict()
        settings: dict[str, Any] = values.pop("settings")
        return values | settings

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """Rebuild what :meth:`to_dict` wrote."""
        values = dict(values)
        kind = type(next(iter(presets_of(values["algorithm"]).values())))
        values["settings"] = kind(**values["settings"])
        values["env_options"] = tuple(values["env_options"])
        config = cls(**values)
        config.check()
        return config


# What environments are built with but a run's options must not say.
_NOT_OPTIONS = {
    "name": "the environment is named by itself",
    "num_envs": "num_envs is a setting of its own",
    "seed": "seed is a setting of its own",
    "seeds": "seed is a setting of its own",
    "device": "device is a setting of its own",
    "card": "device is a setting of its own",
    "auto_reset": "training needs a new episode after the last",
}


def presets_of(algorithm: str) -> Mapping[str, KMappo | OffPolicy]:
    """The presets of an algorithm by name; ``UsageError`` if there is no such algorithm."""
    presets: dict[str, Mapping[str, KMappo | OffPolicy]] = {
        "k-mappo": PRESETS,
        "k-maddpg": MADDPG_PRESETS,
        "k-facmac": FACMAC_PRESETS,
    }
    if algorithm not in presets:
        raise unknown_name("algorithm", algorithm, presets)
    return presets[algorithm]


def default_preset(algorithm: str, env: str) -> str:
    """The preset that is meant where none is named."""
    family, presets = env.partition("/")[0], presets_of(algorithm)
    if algorithm == "k-mappo":
        return family if family in ("smac", "mamujoco") else next(iter(presets))
    return family if family in ("smac", "smax") else "mamujoco"


def run_defaults(algorithm: str, preset: str, env: str = "") -> dict[str, Any]:
    """Fields of :class:`Config` that a preset sets beside the settings."""
    if (algorithm, preset) == ("k-mappo", "mamujoco"):
        return dict(MAMUJOCO_RUN)
    defaults = dict(RUN_DEFAULTS.get(preset, {}))
    if defaults and env.startswith("smac/"):
        defaults["eval_episodes"] = defaults["eval_every_episodes"]  # the game is slow: the last one is as the others
    return defaults


def _parse(value: str) -> Any:
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value
