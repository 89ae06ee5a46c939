"""K-MAPPO: MAPPO whose agents update against the updated policies of the others (kpg.py is the recursion).

log R_i = log pi_theta(a_i|o_i) - log pi_old(a_i|o_i) + log M_i
log M_i = sum_{j != i} log pi_{theta_j^(k-1)}(a_j|o_j) - log pi_old(a_j|o_j)         (no gradient; 0 at level 1)
L_i     = -mean[min(R_i A, clip(R_i, 1 - eps, 1 + eps) A)] - c_ent * entropy
"""

from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from kpg_fast.config import Config
from kpg_fast.kernels.gae import gae
from kpg_fast.kernels.k_level_surrogate import STATS, k_level_surrogate, others_log_ratio
from kpg_fast.kernels.policy import log_prob_entropy, sample
from kpg_fast.kernels.value_loss import value_loss
from kpg_fast.kpg import k_level_update
from kpg_fast.minibatch import Minibatch, per_env
from kpg_fast.networks.actor_critic import Network
from kpg_fast.networks.value_norm import ValueNorm
from kpg_fast.rollout import Rollout
from kpg_fast.store.learner import Learner


class Actor:
    """The policies of all agents: one shared network or one each, with their recurrent state."""

    def __init__(self, network: Network, learner: Learner, num_agents: int, seed: int) -> None:
        self.network, self.learner, self.num_agents, self.seed = network, learner, num_agents, seed
        self.shared = learner.groups == 1
        self.hidden = torch.empty(0)

    def begin(self, num_envs: int) -> None:
        """Forget the past of ``num_envs`` environments."""
        rows = num_envs * self.num_agents // self.learner.groups
        self.hidden = self.network.hidden_state(self.learner.groups, rows, self.learner.dtype)

    def logits(self, p: dict[str, Tensor], obs: Tensor, hidden: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [T, E, N, A] of observations [T, E, N, O], and the hidden states [G, T, R, H]."""
        rows = obs[None] if self.shared else obs.permute(2, 0, 1, 3).unsqueeze(3)
        y, hidden = self.network(p, rows, hidden, reset)
        return (y[0] if self.shared else y.squeeze(3).permute(1, 2, 0, 3)), hidden

    @torch.no_grad()
    def act(
        self, obs: Tensor, avail_actions: Tensor, reset: Tensor, counter: int, greedy: bool = False
    ) -> tuple[Tensor, Tensor]:
        """See :class:`kpg_fast.rollout.Policy`."""
        obs = obs.to(self.learner.dtype)
        logits, hidden = self.logits(self.learner.theta, obs[None], self.hidden, reset[None])
        if self.network.recurrent:
            self.hidden = hidden[:, 0]
        rows = torch.arange(obs.shape[0] * self.num_agents).view(obs.shape[:2])
        return sample(logits[0], avail_actions, self.seed, rows, counter, greedy=greedy)

    @torch.no_grad()
    def act_for(
        self, envs: Tensor, obs: Tensor, avail_actions: Tensor, reset: Tensor, counter: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See :class:`kpg_fast.rollout.Sampler`."""
        rows = self.num_agents // self.learner.groups
        hidden = per_env(self.hidden, rows)[:, envs].flatten(1, 2)
        logits, after = self.logits(self.learner.theta, obs.to(self.learner.dtype)[None], hidden, reset[None])
        if self.network.recurrent:
            self.hidden = self.hidden.clone()  # an update may still need the one it began with
            per_env(self.hidden, rows)[:, envs] = per_env(after[:, 0], rows)
        agents = envs[:, None] * self.num_agents + torch.arange(self.num_agents)
        return sample(logits[0], avail_actions, self.seed, agents, counter[:, None])


class Critic:
    """One value function of the state and the agent's id, for all agents.

    Args:
        network: of the state and the id.
        learner: its parameters.
        num_agents: N.
        death_mask: show it zeros in place of the state where the agent is dead.
        norm: in whose units the network's values are; None: in those of the returns.
    """

    def __init__(
        self,
        network: Network,
        learner: Learner,
        num_agents: int,
        death_mask: bool = False,
        norm: ValueNorm | None = None,
    ) -> None:
        self.network, self.learner, self.num_agents = network, learner, num_agents
        self.death_mask, self.norm = death_mask, norm
        self.hidden = torch.empty(0)

    def begin(self, num_envs: int) -> None:
        """Forget the past of ``num_envs`` environments."""
        self.hidden = self.network.hidden_state(1, num_envs * self.num_agents, self.learner.dtype)

    def values(
        self, p: dict[str, Tensor], state: Tensor, hidden: Tensor, reset: Tensor, alive: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Values [T, E, N] of states [T, E, S] with alive [T, E, N], and the hidden states [1, T, E * N, H]."""
        y, hidden = self.network(p, state[None, :, :, None], hidden, reset, alive if self.death_mask else None)
        return y[0, ..., 0], hidden

    @torch.no_grad()
    def evaluate(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """Values [T+1, E, N] along a rollout, those of the last states of truncated episodes [T, E, N] (else 0), and
        the hidden states [1, T+1, E * N, H].
        """
        dtype = self.learner.dtype
        state, reset, alive = rollout.state.to(dtype), rollout.reset, rollout.alive
        values, hidden = self.values(self.learner.theta, state, self.hidden, reset, alive)
        last = torch.zeros_like(values[:-1])
        t, e = rollout.truncated.nonzero(as_tuple=True)
        if len(t):
            state = rollout.last_state[t, e].to(dtype)[None]
            at = self.network.hidden_state(1, len(t) * self.num_agents, dtype)
            if self.network.recurrent:
                at = per_env(hidden[0], self.num_agents)[t, e].flatten(0, 1)[None]
            goes_on = torch.zeros(1, len(t), dtype=torch.bool)
            # who has died in the last step is not told
            last[t, e] = self.values(self.learner.theta, state, at, goes_on, alive[t, e][None])[0][0]
        if self.network.recurrent:
            self.hidden = hidden[:, -2].clone()  # the state after step T is entered again by the next rollout
        return values, last, hidden


class KMappo:
    """The update: K levels for the actors, one step for the critic, minibatch by minibatch."""

    def __init__(self, config: Config, actor: Actor, critic: Critic) -> None:
        self.config, self.actor, self.critic = config, actor, critic

    @torch.no_grad()
    def advantages(self, rollout: Rollout, values: Tensor, last_values: Tensor) -> tuple[Tensor, Tensor]:
        """Advantages and returns [T, E, N] by GAE; the time limit is bootstrapped from ``last_values``."""
        s, norm = self.config.k_mappo, self.critic.norm
        if norm is not None:
            values, last_values = norm.restore(values), norm.restore(last_values)
        return gae(
            rollout.reward.to(values.dtype),
            values[:-1],
            values[-1],
            rollout.terminated,
            rollout.truncated,
            last_values,
            rollout.valid,
            gamma=s.gamma,
            gae_lambda=s.gae_lambda,
        )

    def mask(self, rollout: Rollout) -> Tensor:
        """Rows [T, E, N] that count in the actors' losses."""
        alive = rollout.alive[:-1] if self.config.k_mappo.mask_dead else torch.ones_like(rollout.alive[:-1])
        return alive & rollout.valid[..., None]

    def value_mask(self, rollout: Rollout) -> Tensor:
        """Rows [T, E, N] that count in the critic's loss: a critic that is told who is dead learns of them, too."""
        if not self.critic.death_mask:
            return self.mask(rollout)
        return rollout.valid[..., None].expand_as(rollout.alive[:-1]).contiguous()

    def update_actor(self, batch: Minibatch) -> dict[str, Any]:
        """One K-level step of the actors; returns what it measured, as 0-dim or 1-dim tensors."""
        start = perf_counter()
        s, data, actor = self.config.k_mappo, batch.data, self.actor
        alive = data.alive[:-1]
        leaves = actor.learner.leaves()
        logits, _ = actor.logits(leaves, data.obs[:-1], batch.hidden, data.reset[:-1])
        advantage = normalise(batch.advantage, batch.mask)
        measured: dict[str, Any] = {}
        clock = [start]

        def policy_gradient(theta: str, others: Tensor | None) -> tuple[Tensor, ...]:
            surrogate = k_level_surrogate(
                logits,
                data.avail_actions[:-1],
                data.action,
                data.log_prob,
                advantage,
                batch.mask,
                others,
                clip_eps=s.clip_eps,
                ent_coef=s.ent_coef,
                clip_mode=s.clip_mode,
                others_clip_eps=s.clip_eps_others,
            )
            measured.update(zip(STATS, surrogate.stats, strict=True), log_m=others)
            return torch.autograd.grad(surrogate.loss, list(leaves.values()), retain_graph=True)

        def step(theta: str, grad: tuple[Tensor, ...], k: int) -> str:
            theta_k = actor.learner.step(grad, k)
            measured[f"delta/{k}"] = actor.learner.distance(theta_k, actor.learner.level_slot(k - 1))
            measured["grad_norm"] = actor.learner.grad_norm.max()
            clock.append(perf_counter())
            measured[f"time/level_{k}"] = clock[-1] - clock[-2]
            return theta_k

        @torch.no_grad()
        def anticipate(theta_k: str) -> Tensor:
            new, _ = actor.logits(actor.learner.views(theta_k), data.obs[:-1], batch.hidden, data.reset[:-1])
            log_prob, _ = log_prob_entropy(new, data.avail_actions[:-1], data.action)
            return others_log_ratio(log_prob, data.log_prob, alive)

        level_one = anticipate("theta") if s.level1_others == "current" else None
        theta_k = k_level_update("theta", self.config.levels, level_one, policy_gradient, step, anticipate)
        actor.learner.commit(theta_k)
        return measured

    def update_critic(self, batch: Minibatch) -> dict[str, Tensor]:
        """One step of the critic towards the returns, with value clipping."""
        s, data, learner = self.config.k_mappo, batch.data, self.critic.learner
        returns, norm = batch.returns, self.critic.norm
        if norm is not None:
            norm.update(returns, batch.value_mask)
            returns = norm.normalise(returns)
        leaves = learner.leaves()
        values, _ = self.critic.values(leaves, data.state[:-1], batch.critic_hidden, data.reset[:-1], data.alive[:-1])
        loss = value_loss(values, batch.value, returns, batch.value_mask, clip_eps=s.clip_eps)
        grads = torch.autograd.grad(s.vf_coef * loss, list(leaves.values()))
        learner.commit(learner.step(grads, 1))
        return {"value_loss": loss.detach()}

    def update(self, batch: Minibatch) -> dict[str, Any]:
        """Actors and critic once; returns what was measured: tensors, and seconds under ``time/``."""
        start = perf_counter()
        measured = self.update_actor(batch)
        between = perf_counter()
        measured |= self.update_critic(batch)
        return measured | {"time/levels": between - start, "time/critic": perf_counter() - between}


def normalise(advantage: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 (of the population, as JaxMARL) over the rows that count."""
    weight = mask.to(advantage.dtype)
    count = weight.sum().clamp_min(1)
    mean = (advantage * weight).sum() / count
    variance = ((advantage - mean).square() * weight).sum() / count
    return (advantage - mean) / (variance.sqrt() + 1e-8)
