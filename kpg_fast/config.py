"""What a run is: frozen dataclasses, presets with the source of every number, and checks that name what is wrong."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from kpg_fast.checks import above_zero, at_least, check_types, up_to_one
from kpg_fast.errors import UsageError, unknown_name
from kpg_fast.off_policy.settings import FACMAC_PRESETS, MADDPG_PRESETS, RUN_DEFAULTS, OffPolicy

Algorithm = Literal["k-mappo", "k-maddpg", "k-facmac"]
Preset = Literal["jaxmarl", "kpg", "mamujoco", "smac"]
Precision = Literal["fp32", "tf32", "mixed-lookahead", "bf16"]
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
    """Minibatches a pass, made of whole samples (environments, or stretches of ``chunk_length``), whose number it
    divides."""
    chunk_length: int = 0
    """Steps that gradients go back in time: recurrent networks learn from stretches of so many, begun with the hidden
    state of the rollout. 0: the whole rollout."""
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
    lookahead_share: float = 1.0
    """Below 1 an approximation: levels below K take their gradient from this share of a minibatch's samples, or with
    ``lookahead_window`` of its windows."""
    lookahead_window: int = 0
    """Above 0 an approximation: gradients of levels below K go back in time to the beginning of a window of so many
    steps, as in truncated back-propagation through time."""
    mask_dead: bool = True
    """Leave rows of dead agents out of the losses (JaxMARL counts them)."""
    death_mask: bool = False
    """Show the critic zeros in place of the state, beside the id, where the agent is dead, and let it learn from these
    rows; ``mask_dead`` then concerns the actors alone."""
    value_norm: bool = False
    """Let the critic predict returns in units of their running mean and standard deviation."""

    def check(self) -> None:
        """Raise ``UsageError`` for the first value that cannot be trained with."""
        check_types(self)
        at_least(self, 1, "num_envs", "num_steps", "num_epochs", "num_minibatches", "hidden")
        at_least(self, 0, "chunk_length", "lookahead_window", "ent_coef", "vf_coef")
        above_zero(self, "lr", "clip_eps", "clip_eps_others", "max_grad_norm")
        up_to_one(self, "gamma", "gae_lambda", "lookahead_share")
        if self.chunk_length and self.num_steps % self.chunk_length:
            raise UsageError(
                f"chunk_length = {self.chunk_length} does not divide num_steps = {self.num_steps}; nearest that do: "
                f"{_divisors_near(self.num_steps, self.chunk_length)}"
            )
        if self.num_samples % self.num_minibatches:
            what = "stretches" if self.chunk_length else "environments"
            raise UsageError(
                f"num_minibatches = {self.num_minibatches} does not divide {self._samples()}: minibatches are made of "
                f"whole {what}; nearest that do: {_divisors_near(self.num_samples, self.num_minibatches)}"
            )

        self._check_lookahead()

    def _check_lookahead(self) -> None:
        """At least one sample or window must be left."""
        steps = self.chunk_length or self.num_steps
        parts = (
            -(-steps // self.lookahead_window) if self.lookahead_window else self.num_samples // self.num_minibatches
        )
        if self.lookahead_share * parts < 1:
            what = "windows of a sample" if self.lookahead_window else "samples of a minibatch"
            raise UsageError(
                f"lookahead_share = {self.lookahead_share} of the {parts} {what} is less than one; the least is "
                f"{1 / parts:.4g}"
            )

    @property
    def num_samples(self) -> int:
        """Samples of a rollout that minibatches are made of."""
        return self.num_envs * (self.num_steps // self.chunk_length if self.chunk_length else 1)

    def _samples(self) -> str:
        stretches = f" * num_steps / chunk_length = {self.num_samples}" if self.chunk_length else f" = {self.num_envs}"
        return f"num_envs{stretches}"


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
    card only, is the second with tf32 factors in what is committed."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where everything runs but greedy evaluations, which the CPU plays; ``cuda``: k-mappo on smax/."""
    graphs: bool = True
    """On ``cuda``, capture an iteration once and replay it; without, every operation is queued by itself, with the same
    numbers and what a debugger needs."""
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
        given = _for_map(algorithm, preset, env) | {k: v for k, v in values.items() if k in of_settings}
        settings = dataclasses.replace(presets[preset], **given)
        config = cls(
            algorithm=cast(Algorithm, algorithm),
            env=env,
            preset=cast(Preset, preset),
            settings=settings,
            **run_defaults(preset, env) | {k: v for k, v in values.items() if k in own},
        )
        config.check()
        return config

    def check(self) -> None:
        """Raise ``UsageError`` for the first value that cannot be trained with."""
        check_types(self)
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
            allowed = ("fp32",) if s.recurrent else ("fp32", "bf16")
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
        if self.algorithm != "k-mappo" or not self.env.startswith("smax/"):
            raise UsageError(
                f"device = 'cuda': {self.algorithm} on {self.env} trains on the cpu; k-mappo on smax/ on a card, too"
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
        parsed = {}
        for item in self.env_options:
            name, equals, value = item.partition("=")
            if not equals or not name:
                raise UsageError(f"env option {item!r} is not of the form name=value")
            parsed[name] = value if name.endswith("version") else _parse(value)
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
    # MAPPO on SMAC (Yu et al., arXiv 2103.01955), github.com/marlbenchmark/on-policy (commit de66d7a): config.py and
    # scripts/train_smac_scripts/*.sh. Death masking is their use_mustalive (the state of a dead agent is zero) with
    # use_value_active_masks off (the flag in their scripts turns it off) and use_policy_active_masks on; the agent's
    # id in the critic's input is the paper's. Their Huber loss with delta 10 is a square here: normalised
    # errors do not come near 10. Their layer norms and stacked frames (3s_vs_4z, 3s_vs_5z) are left out.
    "smac": KMappo(
        lr=0.0005,
        anneal_lr=False,
        num_envs=8,
        num_steps=400,
        num_epochs=15,
        num_minibatches=1,
        chunk_length=10,
        ent_coef=0.01,
        vf_coef=1.0,
        max_grad_norm=10.0,
        hidden=64,
        death_mask=True,
        value_norm=True,
    ),
}

# What the same scripts have otherwise for single maps; ppo_epoch 5 is that of all their SMACv2 scripts.
_SMAC_MAPS: dict[str, dict[str, Any]] = {
    "5m_vs_6m": {"num_epochs": 10, "clip_eps": 0.05},
    "8m_vs_9m": {"clip_eps": 0.05},
    "3s_vs_5z": {"clip_eps": 0.05},
    **{name: {"num_epochs": 10} for name in ("10m_vs_11m", "25m")},
    **{
        name: {"num_epochs": 5}
        for name in ("27m_vs_30m", "2c_vs_64zg", "3s5z", "3s5z_vs_3s6z", "6h_vs_8z", "MMM2", "corridor")
    },
}


def _for_map(algorithm: str, preset: str, env: str) -> dict[str, Any]:
    """Settings of a preset that depend on the map."""
    family, _, name = env.partition("/")
    if (algorithm, preset, family) != ("k-mappo", "smac", "smac"):
        return {}
    return {"num_epochs": 5} if name.startswith("10gen_") else _SMAC_MAPS.get(name, {})


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
        return "smac" if family == "smac" else next(iter(presets))
    return "smac" if family in ("smax", "smac") else "mamujoco"


def run_defaults(preset: str, env: str = "") -> dict[str, Any]:
    """Fields of :class:`Config` that a preset sets beside the settings."""
    defaults = dict(RUN_DEFAULTS.get(preset, {}))
    if defaults and env.startswith("smac/"):
        defaults["eval_episodes"] = defaults["eval_every_episodes"]  # the game is slow: the last one is as the others
    return defaults


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
