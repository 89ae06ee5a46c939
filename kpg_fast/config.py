"""What a run is: frozen dataclasses, presets with the source of every number, and checks that name what is wrong."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from kpg_fast.checks import above_zero, at_least, check_choices, up_to_one
from kpg_fast.errors import UsageError, unknown_name
from kpg_fast.off_policy.settings import FACMAC_PRESETS, MADDPG_PRESETS, RUN_DEFAULTS, OffPolicy

Algorithm = Literal["k-mappo", "k-maddpg", "k-facmac"]
Preset = Literal["jaxmarl", "kpg", "mamujoco", "smac"]
Precision = Literal["fp32", "bf16"]
ClipMode = Literal["product", "own", "double"]
OptimizerName = Literal["adam", "rmsprop", "sgd"]


@dataclass(frozen=True, kw_only=True)
class KMappo:
    """Settings of K-MAPPO. The defaults are the ``jaxmarl`` preset (see ``PRESETS``)."""

    lr: float = 0.002
    """Learning rate of actor and critic."""
    anneal_lr: bool = True
    """Lower the learning rate linearly to zero over ``total_steps``."""
    num_envs: int = 128
    """E: environments stepped together."""
    num_steps: int = 128
    """T: steps of every environment between updates."""
    num_epochs: int = 4
    """Passes over a rollout."""
    num_minibatches: int = 4
    """Minibatches a pass; whole environments, so it divides ``num_envs``."""
    gamma: float = 0.99
    """Discount of a step."""
    gae_lambda: float = 0.95
    """Weight of longer returns in generalised advantage estimation."""
    clip_eps: float = 0.2
    """Half-width of the interval the joint ratio is clipped to, and of the value clip."""
    clip_eps_others: float = 0.2
    """Half-width of the interval M_i is clamped to in clip mode ``double``."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.25
    """Global norm each actor's (and the critic's) gradient is clipped to."""
    hidden: int = 128
    """H: width of every layer."""
    recurrent: bool = True
    """GRU actor and critic; otherwise feed-forward ones."""
    shared_actor: bool = True
    """One actor for all agents; otherwise one each."""
    agent_id: bool = False
    """Append a one-hot agent id to the actor's observation (the critic always has it)."""
    optimizer: OptimizerName = "adam"
    """Of actors and critic; every level starts from its state before the update."""
    level1_others: Literal["base", "current"] = "base"
    """What level 1 takes the others to do: nothing new (M_i = 1, plain MAPPO) or their current policies. ``current``
    with ``levels = 1`` is the control "joint-ratio MAPPO without lookahead"."""
    clip_mode: ClipMode = "product"
    """What is clipped: the joint ratio R_i, only the own ratio, or M_i first and then the product."""
    mask_dead: bool = True
    """Leave rows of dead agents out of the losses (JaxMARL counts them)."""

    def check(self) -> None:
        """Raise ``UsageError`` for the first value that cannot be trained with."""
        check_choices(self)
        at_least(self, 1, "num_envs", "num_steps", "num_epochs", "num_minibatches", "hidden")
        above_zero(self, "lr", "clip_eps", "clip_eps_others", "max_grad_norm")
        up_to_one(self, "gamma", "gae_lambda")
        if self.num_envs % self.num_minibatches:
            raise UsageError(
                f"num_minibatches = {self.num_minibatches} does not divide num_envs = {self.num_envs}: minibatches are "
                f"made of whole environments; nearest that do: {_divisors_near(self.num_envs, self.num_minibatches)}"
            )


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
    """Of the products: float32, or bf16 factors summed in float32 (parameters and optimiser stay float32)."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where everything runs; training on ``cuda`` is not there yet and says so."""
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
        preset = values.pop("preset", None) or default_preset(algorithm, env)
        presets = presets_of(algorithm)
        if preset not in presets:
            raise unknown_name("preset", str(preset), presets)
        own = {f.name for f in dataclasses.fields(cls)} - {"settings"}
        of_settings = {f.name for f in dataclasses.fields(presets[preset])}
        for name in values:
            if name not in own | of_settings:
                raise unknown_name("setting", name, own | of_settings)
        settings = dataclasses.replace(presets[preset], **{k: v for k, v in values.items() if k in of_settings})
        config = cls(
            algorithm=cast(Algorithm, algorithm),
            env=env,
            preset=cast(Preset, preset),
            settings=settings,
            **run_defaults(preset) | {k: v for k, v in values.items() if k in own},
        )
        config.check()
        return config

    def check(self) -> None:
        """Raise ``UsageError`` for the first value that cannot be trained with."""
        check_choices(self)
        at_least(self, 1, "levels", "total_steps", "eval_episodes", "checkpoint_every")
        at_least(self, 0, "seed", "eval_every", "eval_every_episodes")
        if self.preset not in presets_of(self.algorithm):
            raise unknown_name("preset", self.preset, presets_of(self.algorithm))
        if self.device != "cpu":
            raise UsageError(f"device = {self.device!r}: this version trains on the cpu only")
        s = self.settings
        s.check()
        if isinstance(s, OffPolicy) and self.precision != "fp32":
            raise UsageError(f"precision = {self.precision!r}: {self.algorithm} runs in fp32 only")
        if self.total_steps < s.num_envs * s.num_steps:
            raise UsageError(
                f"total_steps = {self.total_steps} is less than one rollout of num_envs * num_steps = "
                f"{s.num_envs * s.num_steps}"
            )

    @property
    def num_updates(self) -> int:
        """Rollouts, and so updates, of the whole run."""
        return self.total_steps // (self.settings.num_envs * self.settings.num_steps)

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
        """``env_options`` as keyword arguments: numbers and booleans are read as such."""
        parsed = {}
        for item in self.env_options:
            name, equals, value = item.partition("=")
            if not equals or not name:
                raise UsageError(f"env option {item!r} is not of the form name=value")
            parsed[name] = _parse(value)
        return parsed

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; :meth:`from_dict` reads them back."""
        return dataclasses.asdict(self)

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


PRESETS: dict[str, KMappo] = {
    # JaxMARL, baselines/MAPPO/config/mappo_homogenous_rnn_smax.yaml and mappo_rnn_smax.py (commit c793d09): every
    # number is from there; dead agents are counted in the losses as their script does.
    "jaxmarl": KMappo(mask_dead=False),
    # The public K2-MAPPO runs on SMAX of the paper's authors (arXiv 2509.12117): 64 envs x 128 steps, lr .004
    # annealed, 2 epochs x 2 minibatches, grad norm .5; gamma, lambda, clip, value and entropy weights as above.
    "kpg": KMappo(lr=0.004, num_envs=64, num_epochs=2, num_minibatches=2, max_grad_norm=0.5),
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
    presets = presets_of(algorithm)
    if "smac" not in presets:
        return next(iter(presets))
    return "smac" if env.partition("/")[0] in ("smax", "smac") else "mamujoco"


def run_defaults(preset: str) -> dict[str, Any]:
    """Fields of :class:`Config` that a preset sets beside the settings."""
    return dict(RUN_DEFAULTS.get(preset, {}))


def _divisors_near(total: int, wanted: int) -> str:
    divisors = [d for d in range(1, total + 1) if total % d == 0]
    return ", ".join(str(d) for d in sorted(divisors, key=lambda d: abs(d - wanted))[:3])


def _parse(value: str) -> Any:
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value
