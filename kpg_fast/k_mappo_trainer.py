"""K-MAPPO on one environment: rollouts, updates, evaluation, and all that an exact resume needs."""

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from kpg_fast.config import Config
from kpg_fast.envs import EnvSpec, UnevenVecEnv, VecEnv, make
from kpg_fast.errors import UsageError
from kpg_fast.evaluation import Evaluation
from kpg_fast.k_mappo import KMappo
from kpg_fast.minibatch import Minibatch
from kpg_fast.networks.actor_critic import Network
from kpg_fast.networks.value_norm import ValueNorm
from kpg_fast.policies import Actor, Critic
from kpg_fast.rollout import EpisodeTracker, Rollout
from kpg_fast.store.learner import Learner

_M_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def build_actor(config: Config, spec: EnvSpec, dtype: torch.dtype) -> Actor:
    """The actors of a run with their optimiser, uninitialised."""
    s, n = config.k_mappo, spec.num_agents
    ids = n if s.agent_id and s.shared_actor else 0
    network = Network(spec.obs_size, s.hidden, spec.num_actions, s.recurrent, 0.01, ids, config.forward_precision)
    groups = 1 if s.shared_actor else n
    learner = Learner(
        network.shapes(), groups, s.optimizer, s.lr, s.max_grad_norm, dtype=dtype, debug_drift=config.debug_drift
    )
    return Actor(network, learner, n, config.seed)


def build_critic(config: Config, spec: EnvSpec, dtype: torch.dtype) -> Critic:
    """The critic of a run with its optimiser, uninitialised."""
    s, n = config.k_mappo, spec.num_agents
    network = Network(spec.state_size, s.hidden, 1, s.recurrent, 1.0, n, config.forward_precision)
    learner = Learner(network.shapes(), 1, s.optimizer, s.lr, s.max_grad_norm, dtype=dtype)
    return Critic(network, learner, n, s.death_mask, ValueNorm(dtype) if s.value_norm else None)


class KMappoTrainer:
    """See :class:`kpg_fast.trainer.Trainer`. ``dtype`` float64 is for tests: every operation in double precision."""

    def __init__(self, config: Config, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.dtype = config, dtype
        s = config.k_mappo
        self.env = make(config.env, s.num_envs, config.seed, config.device, **config.options())
        spec = self.env.spec
        if spec.continuous:
            self.env.close()
            raise UsageError(f"k-mappo chooses among discrete actions; those of {spec.name} are continuous here")
        self.evaluation = Evaluation(config, self.env)
        self.facts = dict(spec.facts)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.actor, self.critic = build_actor(config, spec, dtype), build_critic(config, spec, dtype)
        self.actor.network.initialise(self.actor.learner.theta, self.generator)
        self.critic.network.initialise(self.critic.learner.theta, self.generator)
        self.actor.begin(s.num_envs)
        self.critic.begin(s.num_envs)
        self.algorithm = KMappo(config, self.actor, self.critic)
        self.rollout = Rollout.allocate(spec, s.num_steps)
        self.rollout.begin(self.env)
        self.episodes = EpisodeTracker.allocate(s.num_envs)
        self.updates, self.num_updates = 0, config.num_updates

    @property
    def env_steps(self) -> int:
        """Environment steps done, over all environments."""
        return self.updates * self.config.k_mappo.num_steps * self.config.k_mappo.num_envs

    def update(self) -> dict[str, float]:
        """Roll out, then several passes of minibatch updates over it."""
        s, start = self.config.k_mappo, perf_counter()
        lr = s.lr * (1 - self.updates / self.num_updates) if s.anneal_lr else s.lr
        self.actor.learner.lr = self.critic.learner.lr = lr
        actor_hidden, critic_hidden = self.actor.hidden, self.critic.hidden
        metrics = self.rollout.collect(self.env, self.actor, self.updates * s.num_steps)
        metrics |= self.episodes.follow(self.rollout)
        if isinstance(self.env, UnevenVecEnv):
            metrics |= self.env.metrics()
        whole = self.whole_batch(actor_hidden, critic_hidden)
        metrics |= self._learn(whole)
        metrics["explained_variance"] = _explained_variance(whole)
        metrics["lr"] = lr
        metrics["env_sps"] = s.num_steps * s.num_envs / (perf_counter() - start)
        metrics["agent_sps"] = metrics["env_sps"] * self.env.spec.num_agents
        self.updates += 1
        return metrics

    def whole_batch(self, actor_hidden: Tensor, critic_hidden: Tensor) -> Minibatch:
        """The rollout with values and advantages, given the hidden states [G, R, H] it began with."""
        rollout = self.rollout
        values, last_values, critic_hiddens = self.critic.evaluate(rollout)
        advantage, returns = self.algorithm.advantages(rollout, values, last_values)
        masks = self.algorithm.mask(rollout), self.algorithm.value_mask(rollout)
        whole = Minibatch(rollout, actor_hidden, critic_hidden, values[:-1], advantage, returns, *masks)
        length = self.config.k_mappo.chunk_length
        if not length:
            return whole
        with torch.no_grad():
            obs, theta = rollout.obs[:-1].to(self.dtype), self.actor.learner.theta
            _, actor_hiddens = self.actor.logits(theta, obs, actor_hidden, rollout.reset[:-1])
        return whole.stretches(length, actor_hiddens, critic_hiddens)

    def _learn(self, whole: Minibatch) -> dict[str, float]:
        s = self.config.k_mappo
        sums: dict[str, Any] = defaultdict(float)
        for _ in range(s.num_epochs):
            for samples in torch.randperm(s.num_samples, generator=self.generator).chunk(s.num_minibatches):
                measured = self.algorithm.update(whole.select(samples, self.actor.learner.groups, self.dtype))
                last_m = measured.pop("log_m")
                for name, value in measured.items():
                    sums[name] += value
        count = s.num_epochs * s.num_minibatches
        metrics = {n: float(v) if n.startswith("time/") else float(v) / count for n, v in sums.items()}
        return metrics | _level_metrics(metrics, last_m, self.config.levels)

    def evaluate(self, episodes: int, watch: Callable[[VecEnv], None] | None = None) -> dict[str, float]:
        """See :class:`kpg_fast.trainer.Trainer`."""
        return self.evaluation.play(episodes, self.player, watch)

    def player(self, num_envs: int) -> Actor:
        """See :class:`kpg_fast.trainer.Trainer`."""
        player = Actor(self.actor.network, self.actor.learner, self.actor.num_agents, self.config.seed)
        player.begin(num_envs)
        return player

    def tensors(self) -> dict[str, Tensor]:
        """See :class:`kpg_fast.trainer.Trainer`."""
        tensors = {f"env/{name}": torch.as_tensor(value) for name, value in self.env.state_dict().items()}
        for name, part in (("actor", self.actor), ("critic", self.critic)):
            tensors |= {f"{name}/{slot}": value for slot, value in part.learner.tensors().items()}
            tensors[f"{name}/hidden"] = part.hidden
        if self.critic.norm is not None:
            tensors["critic/norm"] = self.critic.norm.statistics
        tensors["generator"] = self.generator.get_state()
        return tensors | self.rollout.tensors() | self.episodes.tensors()

    def counters(self) -> dict[str, Any]:
        """See :class:`kpg_fast.trainer.Trainer`."""
        return {
            "updates": self.updates,
            "actor_steps": self.actor.learner.steps,
            "critic_steps": self.critic.learner.steps,
        }

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """See :class:`kpg_fast.trainer.Trainer`."""
        mine = self.tensors()
        for name in sorted(mine.keys() | tensors.keys()):
            if name not in tensors or name not in mine:
                where = "missing from" if name not in tensors else "unknown to"
                raise UsageError(f"{name} is {where} the {'checkpoint' if name not in tensors else 'run'}")
            if mine[name].shape != tensors[name].shape:
                raise UsageError(
                    f"{name} has shape {tuple(tensors[name].shape)} in the checkpoint; this run needs "
                    f"{tuple(mine[name].shape)}"
                )
        self.env.load_state_dict({n[4:]: t.numpy() for n, t in tensors.items() if n.startswith("env/")})
        self.generator.set_state(tensors["generator"])
        for name, target in mine.items():
            if not name.startswith("env/") and name != "generator":
                target.copy_(tensors[name])
        self.updates = counters["updates"]
        self.actor.learner.steps = counters["actor_steps"]
        self.critic.learner.steps = counters["critic_steps"]

    def close(self) -> None:
        """Release the environments."""
        self.env.close()
        self.evaluation.close()


def _explained_variance(whole: Minibatch) -> float:
    valid = whole.data.valid
    variance = whole.returns[valid].var()
    # the advantage is what the value left of the return
    return float("nan") if variance == 0 else float(1 - whole.advantage[valid].var() / variance)


def _level_metrics(metrics: dict[str, float], log_m: Tensor | None, levels: int) -> dict[str, float]:
    """The contraction ratio (the largest Delta_{k+1} / Delta_k) and quantiles of the last minibatch's M_i."""
    result = {}
    deltas = [metrics[f"delta/{k}"] for k in range(1, levels + 1)]
    ratios = [after / before for before, after in pairwise(deltas) if before > 0]
    if ratios:
        result["contraction_ratio"] = max(ratios)
    if log_m is not None:
        quantiles = torch.quantile(log_m.float().flatten(), torch.tensor(_M_QUANTILES)).exp()
        result |= {f"m/q{int(100 * q):02d}": float(v) for q, v in zip(_M_QUANTILES, quantiles, strict=True)}
    return result
