"""Settings of the off-policy algorithms, K-MADDPG and K-FACMAC, and their presets with the source of every number."""

from dataclasses import dataclass, replace
from typing import Literal

from kpg_fast.checks import above_zero, at_least, check_types, up_to_one
from kpg_fast.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class OffPolicy:
    """Settings of K-MADDPG and K-FACMAC. The defaults are FACMAC's on MAMuJoCo."""

    lr: float = 0.001
    """Learning rate of the actors."""
    critic_lr: float = 0.001
    """Learning rate of critics and mixer."""
    anneal_lr: bool = False
    """Lower both linearly to zero over ``total_steps``, line of metrics by line."""
    num_envs: int = 1
    """E: environments stepped together."""
    num_steps: int = 1000
    """Steps of every environment between two lines of metrics."""
    updates_per_sample: float = 1.0
    """Gradient updates for each stored transition (recurrent: for each stored episode)."""
    batch_size: int = 100
    """B: transitions (recurrent: episodes) of a minibatch."""
    buffer_size: int = 1_000_000
    """Transitions (recurrent: episodes) the replay holds."""
    replay_dir: str | None = None
    """Keep the replay in a file in this directory instead of memory, so that it may exceed it."""
    warmup: int = 1000
    """Transitions (recurrent: episodes) in the replay before the first update."""
    start_steps: int = 10_000
    """Environment steps of uniformly random actions at the start."""
    act_noise: float = 0.1
    """Standard deviation of the exploration noise on continuous actions, which are scaled to [-1, 1]."""
    epsilon_start: float = 0.5
    """Share of random actions in exploration with discrete actions: at first,"""
    epsilon_finish: float = 0.05
    """in the end,"""
    epsilon_steps: int = 50_000
    """and the environment steps between, linearly."""
    gamma: float = 0.99
    """Discount of a step."""
    td_lambda: float = 0.8
    """Weight of longer returns in the targets of recurrent agents; transitions have one-step targets."""
    tau: float = 0.001
    """How far the targets move at every update,"""
    target_interval: int = 0
    """or, if not 0, the updates between two copies of the networks to their targets, in place of tau."""
    actor_reg: float = 0.001
    """Weight of the mean square of the actors' continuous actions, or of the logits of discrete ones."""
    max_grad_norm: float = 0.5
    """Global norm each actor's (and the critics') gradient is clipped to."""
    hidden: int = 400
    """H: width of every layer of actors and critics."""
    recurrent: bool = False
    """GRU actors, learned from whole episodes; otherwise feed-forward ones, learned from transitions."""
    shared_actor: bool = True
    """One actor for all agents; otherwise one each."""
    shared_critic: bool = True
    """One critic (K-FACMAC: utility) network for all agents; otherwise one each."""
    agent_id: bool = False
    """Append a one-hot agent id to the actor's observation."""
    last_action: bool = False
    """Append the agent's last action to the actor's observation (recurrent only)."""
    mixer: Literal["monotonic", "nonmonotonic"] = "monotonic"
    """K-FACMAC: QMIX's mixer, or the same without its sign constraint."""
    mixer_hidden: int = 64
    """K-FACMAC: width of the mixer's hidden layer."""
    hyper_hidden: int = 64
    """K-FACMAC: width of the networks that produce the mixer's weights from the state."""
    level1_others: Literal["base", "current"] = "base"
    """K-MADDPG: what level 1 takes the others to do: as in the replay (MADDPG), or as their current policies would.
    K-FACMAC always takes their current policies (FACMAC)."""
    state_norm: bool = False
    """Show critics and mixer the state in units of its running mean and deviation: for raw states, as SMAX's."""
    optimizer: Literal["adam", "rmsprop", "sgd"] = "rmsprop"
    """The paper finds RMSProp more stable than Adam with levels."""
    rmsprop_eps: float = 1e-5
    """Added to RMSProp's root."""
    rmsprop_correction: bool = False
    """Divide RMSProp's mean square by 1 - 0.99^t, as Adam does; without, its first steps are ten times ``lr``."""
    adam_eps: float = 0.01
    """Added to Adam's root."""

    def check(self) -> None:
        """Raise ``UsageError`` for the first value that cannot be trained with."""
        check_types(self)
        at_least(self, 1, "num_envs", "num_steps", "batch_size", "buffer_size")
        at_least(self, 1, "hidden", "mixer_hidden", "hyper_hidden")
        at_least(self, 0, "warmup", "start_steps", "act_noise", "epsilon_steps", "target_interval", "actor_reg")
        above_zero(self, "lr", "critic_lr", "updates_per_sample", "max_grad_norm", "rmsprop_eps", "adam_eps")
        up_to_one(self, "gamma", "td_lambda", "tau", "epsilon_start", "epsilon_finish")
        if self.buffer_size < max(self.warmup, self.num_envs):
            raise UsageError(
                f"buffer_size = {self.buffer_size}: must hold warmup = {self.warmup} samples and one of each of "
                f"num_envs = {self.num_envs} environments"
            )
        if self.last_action and not self.recurrent:
            raise UsageError("last_action needs recurrent agents: transitions do not keep the action before them")

    @property
    def eps(self) -> float:
        """The epsilon of the chosen optimiser."""
        return self.adam_eps if self.optimizer == "adam" else self.rmsprop_eps


# FACMAC, github.com/oxwhirl/facmac (commit d7e62b8): src/config/algs/facmac_mamujoco.yaml for all numbers but RMSProp's
# epsilon (default.yaml: optim_eps; its alpha, 0.99, is ours too) and the actor's regulariser (facmac_learner.py). It
# uses Adam with epsilon 0.01 there; RMSProp is the K-level paper's choice (arXiv 2509.12117). Normalised states and
# RMSProp's correction are ours: without them neither learns reliably (docs/results/mamujoco_halfcheetah).
_FACMAC_MAMUJOCO = OffPolicy(state_norm=True, rmsprop_correction=True)
_MADDPG_MAMUJOCO = replace(_FACMAC_MAMUJOCO, shared_critic=False)

# The same repository: src/config/algs/facmac_smac.yaml. One update an episode (run.py); no regulariser of the actor
# (facmac_learner_discrete.py). FACMAC learns with Adam, epsilon 1e-7 (10E-8), and lr 0.0025; here that leaves the
# policies deterministic after 10,000 steps, with either optimiser. 0.0002 learned (docs/results/smac_stand_in).
_FACMAC_SMAC = OffPolicy(
    lr=0.0002,
    critic_lr=0.0005,
    num_envs=1,
    batch_size=32,
    buffer_size=5000,
    warmup=32,
    start_steps=0,
    target_interval=200,
    actor_reg=0.0,
    max_grad_norm=10.0,
    hidden=64,
    recurrent=True,
    agent_id=True,
    last_action=True,
    mixer_hidden=32,
    adam_eps=1e-7,
)

# SMAX has raw states, shorter episodes, and costs next to nothing: many games, an update for every second of them,
# exploration over more steps, and logits that are kept small. Ours: docs/results/smax_k_facmac.
_FACMAC_SMAX = replace(
    _FACMAC_SMAC,
    num_envs=16,
    num_steps=500,
    updates_per_sample=0.5,
    epsilon_steps=200_000,
    actor_reg=0.001,
    state_norm=True,
)

# maddpg_mamujoco.yaml and maddpg_smac.yaml are the same numbers; one critic an agent is MADDPG's (Lowe et al. 2017,
# arXiv 1706.02275), while FACMAC's repository lets all agents share one.
FACMAC_PRESETS = {"mamujoco": _FACMAC_MAMUJOCO, "smac": _FACMAC_SMAC, "smax": _FACMAC_SMAX}
MADDPG_PRESETS = {
    "mamujoco": _MADDPG_MAMUJOCO,
    "smac": replace(_FACMAC_SMAC, shared_critic=False),
    "smax": replace(_FACMAC_SMAX, shared_critic=False),
}

# Environment steps of a run, of the time between two evaluations, and episodes of those: t_max, test_interval and
# test_nepisode of the same files; of smax ours.
RUN_DEFAULTS = {
    "mamujoco": {"total_steps": 2_000_000, "eval_every": 4000, "eval_every_episodes": 10, "eval_episodes": 10},
    "smac": {"total_steps": 2_000_000, "eval_every": 10_000, "eval_every_episodes": 32, "eval_episodes": 512},
    "smax": {"total_steps": 1_500_000, "eval_every": 100_000, "eval_every_episodes": 128, "eval_episodes": 512},
}
