"""Settings of K-MAPPO, and its presets with the source of every number."""

from dataclasses import dataclass
from typing import Any, Literal

from kpg_fast.checks import above_zero, at_least, check_types, up_to_one
from kpg_fast.errors import UsageError

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
    input_norm: bool = False
    """Show actors and critic observations and states in units of their running mean and standard deviation."""
    initial_std: float = 1.0
    """Standard deviation of continuous actions, which are scaled to [-1, 1], at first; it is learned, one an
    actuator."""

    def check(self) -> None:
        """Raise ``UsageError`` for the first value that cannot be trained with."""
        check_types(self)
        at_least(self, 1, "num_envs", "num_steps", "num_epochs", "num_minibatches", "hidden")
        at_least(self, 0, "chunk_length", "lookahead_window", "ent_coef", "vf_coef")
        above_zero(self, "lr", "clip_eps", "clip_eps_others", "max_grad_norm", "initial_std")
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
    # MAPPO on MAMuJoCo in HARL (Zhong et al., arXiv 2304.09870), github.com/PKU-MARL/HARL (commit d539bad):
    # tuned_configs/mamujoco/Ant-v2-4x2/mappo/config.json, with which the other tasks agree where _MAMUJOCO_TASKS says
    # nothing else. HARL's agents see the whole state (--env-options observation=harl, and then --no-agent-id: it names
    # the agent itself), ours their own joints and their neighbours'; its critic has one value a state, ours one an
    # agent. initial_std is its std_y_coef * sigmoid(log_std / std_x_coef) at the start, 0.5 * sigmoid(1).
    # input_norm is ours, for its normalised observation vectors and layer norms; so are
    # two hidden layers for its three, and a squared value loss for Huber's with delta 10.
    "mamujoco": KMappo(
        lr=0.0005,
        anneal_lr=False,
        num_envs=20,
        num_steps=200,
        num_epochs=5,
        num_minibatches=1,
        clip_eps=0.1,
        vf_coef=1.0,
        max_grad_norm=10.0,
        recurrent=False,
        agent_id=True,
        value_norm=True,
        input_norm=True,
        initial_std=0.3655,
    ),
}

# Environment steps of a run and of the time between two evaluations (25 rollouts of 4,000), and episodes of those.
MAMUJOCO_RUN = {"total_steps": 10_000_000, "eval_every": 100_000, "eval_every_episodes": 40, "eval_episodes": 40}

# What HARL's files have otherwise for single tasks.
_MAMUJOCO_TASKS: dict[str, dict[str, Any]] = {
    "HalfCheetah-2x3": {"clip_eps": 0.05, "num_epochs": 15, "ent_coef": 0.01},
    "Hopper-3x1": {"clip_eps": 0.05, "num_epochs": 10, "anneal_lr": True},
    "Humanoid-17x1": {"num_steps": 100, "anneal_lr": True},
    "Walker2d-2x3": {"clip_eps": 0.05, "num_minibatches": 2, "lr": 0.001, "anneal_lr": True},
    "Walker2d-6x1": {"ent_coef": 0.01},
}

# What the scripts of MAPPO on SMAC have otherwise for single maps; ppo_epoch 5 is that of all their SMACv2 scripts.
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


def of_task(preset: str, env: str) -> dict[str, Any]:
    """Settings of a preset that depend on the map or task."""
    family, _, name = env.partition("/")
    if preset != family:
        return {}
    if family == "mamujoco":
        return _MAMUJOCO_TASKS.get(name, {})
    return {"num_epochs": 5} if name.startswith("10gen_") else _SMAC_MAPS.get(name, {})


def _divisors_near(total: int, wanted: int) -> str:
    divisors = [d for d in range(1, total + 1) if total % d == 0]
    return ", ".join(str(d) for d in sorted(divisors, key=lambda d: abs(d - wanted))[:3])
