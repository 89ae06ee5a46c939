"""K-MAPPO: MAPPO whose agents update against the updated policies of the others (kpg.py is the recursion).

log R_i = log pi_theta(a_i|o_i) - log pi_old(a_i|o_i) + log M_i
log M_i = sum_{j != i} log pi_{theta_j^(k-1)}(a_j|o_j) - log pi_old(a_j|o_j)         (no gradient; 0 at level 1)
L_i     = -mean[min(R_i A, clip(R_i, 1 - eps, 1 + eps) A)] - c_ent * entropy
"""

import torch
from torch import Tensor

from kpg_fast.action_distribution import Gaussian
from kpg_fast.config import Config
from kpg_fast.graphs import Beside
from kpg_fast.k_mappo_levels import Levels
from kpg_fast.kernels.gae import gae
from kpg_fast.kernels.value_loss import value_loss
from kpg_fast.kpg import k_level_update
from kpg_fast.minibatch import Minibatch
from kpg_fast.policies import Actor, Critic
from kpg_fast.rollout import Rollout
from kpg_fast.seeds import by_seed, side_by_side
from kpg_fast.stopwatch import Stopwatch


class KMappo:
    """The update: K levels for the actors, one step for the critic, minibatch by minibatch."""

    def __init__(self, config: Config, actor: Actor, critic: Critic, watch: Stopwatch | None = None) -> None:
        self.config, self.actor, self.critic, self.watch = config, actor, critic, watch or Stopwatch()
        self.beside = Beside(actor.theta["out.b"].device)
        self.clips: Tensor | None = None  # [2] on a card, read in place of the configuration's at every replay

    @torch.no_grad()
    def advantages(self, rollout: Rollout, values: Tensor, last_values: Tensor) -> tuple[Tensor, Tensor]:
        """Advantages and returns [S, T, E, N] by GAE; the time limit is bootstrapped from ``last_values``.

        Args:
            rollout: [T, S * E, ...].
            values: [S, T+1, E, N].
            last_values: [S, T, E, N].
        """
        s, norm = self.config.k_mappo, self.critic.norm
        if norm is not None:
            values, last_values = norm.restore(values), norm.restore(last_values)
        values, last_values = side_by_side(values), side_by_side(last_values)
        advantage, returns = gae(
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
        seeds = self.critic.learner.groups
        return by_seed(advantage, seeds), by_seed(returns, seeds)

    def mask(self, rollout: Rollout) -> Tensor:
        """Rows [S, T, E, N] that count in the actors' losses; ``rollout`` is by seed.

        The dead may count where they can do one thing only, which has no gradient; what a Gaussian draws for them has.
        """
        alive = rollout.alive[:, :-1]
        masked = self.config.k_mappo.mask_dead or isinstance(self.actor.distribution, Gaussian)
        return (alive if masked else torch.ones_like(alive)) & rollout.valid[..., None]

    def value_mask(self, rollout: Rollout) -> Tensor:
        """Rows [S, T, E, N] that count in the critic's loss: a critic that is told who is dead learns of them, too."""
        if not self.critic.death_mask:
            return self.mask(rollout)
        return rollout.valid[..., None].expand_as(rollout.alive[:, :-1]).contiguous()

    def update_actor(self, batch: Minibatch) -> dict[str, Tensor]:
        """One K-level step of the actors; returns what it measured, as tensors [S, ...]."""
        levels, learner = Levels(self.config, self.actor, batch, self.watch, self.clips), self.actor.learner
        others = levels.level_one_others()
        theta_k = k_level_update(
            "theta", self.config.levels, others, levels.policy_gradient, levels.step, levels.anticipate
        )
        learner.commit(theta_k)
        return levels.measured

    def update_critic(self, batch: Minibatch) -> dict[str, Tensor]:
        """One step of the critic towards the returns, with value clipping."""
        s, data, learner = self.config.k_mappo, batch.data, self.critic.learner
        returns, norm = batch.returns, self.critic.norm
        if norm is not None:
            norm.update(returns, batch.value_mask)
            returns = norm.normalise(returns)
        leaves = learner.leaves()
        alive = data.alive[:, :-1]
        values, _ = self.critic.values(leaves, data.state[:, :-1], batch.critic_hidden, data.reset[:, :-1], alive)
        rows = zip(values.unbind(), batch.value, returns, batch.value_mask, strict=True)
        clip = None if self.clips is None else self.clips[0]
        losses = [value_loss(*each, clip_eps=s.clip_eps, clip=clip) for each in rows]
        grads = torch.autograd.grad([s.vf_coef * loss for loss in losses], list(leaves.values()))
        learner.commit(learner.step(grads, 1))
        self.watch.lap("critic")
        return {"value_loss": torch.stack([loss.detach() for loss in losses])}

    def update(self, batch: Minibatch) -> dict[str, Tensor]:
        """Actors and critic once, on a card beside each other; returns what was measured, tensors [S, ...] by the
        names of metrics.
        """
        self.watch.start()
        with self.beside.fork():
            of_critic = self.update_critic(batch)
        of_actor = self.update_actor(batch)
        self.beside.join()
        return of_actor | of_critic
