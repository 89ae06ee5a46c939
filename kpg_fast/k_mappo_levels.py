"""What Algorithm 1 (kpg.py) asks of K-MAPPO on one minibatch: a policy gradient, a step, and what the others will do.

Theta is the same at every level, so the pass of the own policies is done once; a level pays its backward pass and
``anticipate``. In the precisions ``mixed-lookahead`` and ``bf16``, ``anticipate`` carries the difference between theta
and theta^(k) through the network (:mod:`kpg_fast.kernels.lookahead`) and adds it to log pi_theta, and the gradients of
levels below K run in bfloat16: they only make the weights M_i.
"""

from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from kpg_fast.config import Config, KMappo
from kpg_fast.kernels.k_level_surrogate import STATS, k_level_surrogate, others_log_ratio
from kpg_fast.kernels.layout import gradients_in
from kpg_fast.kernels.lookahead import log_prob_difference
from kpg_fast.kernels.policy import log_prob_entropy
from kpg_fast.minibatch import Minibatch
from kpg_fast.networks.actor_critic import Trace
from kpg_fast.policies import Actor


class Levels:
    """The levels of one minibatch; ``measured`` collects 0-dim or 1-dim tensors, and seconds under ``time/``."""

    def __init__(self, config: Config, actor: Actor, batch: Minibatch) -> None:
        self.config, self.s, self.actor, self.batch = config, config.k_mappo, actor, batch
        self.clock = perf_counter()
        self.level = 1
        self.measured: dict[str, Any] = {}
        carried = config.precision != "fp32" and config.levels > 1 and actor.learner.dtype == torch.float32
        self.trace: Trace | None = {} if carried else None
        self.leaves = actor.learner.leaves()
        data = batch.data
        self.avail_actions = data.avail_actions[:-1]
        self.advantage = normalise(batch.advantage, batch.mask)
        self.logits, _ = actor.logits(self.leaves, data.obs[:-1], batch.hidden, data.reset[:-1], self.trace)
        self.log_prob = torch.empty(0)

    def level_one_others(self) -> Tensor | None:
        """What level 1 takes the others to do: nothing new, or their current policies."""
        if self.s.level1_others == "base":
            return None
        log_prob, _ = log_prob_entropy(self.logits.detach(), self.avail_actions, self.batch.data.action)
        return self._others(log_prob)

    def policy_gradient(self, theta: str, others: Tensor | None) -> tuple[Tensor, ...]:
        """grad_i J_i(theta_i, others) for all agents, in the layout's order."""
        s, data, last = self.s, self.batch.data, self.level == self.config.levels
        surrogate = k_level_surrogate(
            self.logits,
            self.avail_actions,
            data.action,
            data.log_prob,
            self.advantage,
            self.batch.mask if last else lookahead_mask(self.batch.mask, s),
            others,
            clip_eps=s.clip_eps,
            ent_coef=s.ent_coef,
            clip_mode=s.clip_mode,
            others_clip_eps=s.clip_eps_others,
        )
        self.log_prob = surrogate.log_prob
        self.measured.update(zip(STATS, surrogate.stats, strict=True), log_m=others)
        with nullcontext() if last else self._cheaper():
            return torch.autograd.grad(surrogate.loss, list(self.leaves.values()), retain_graph=not last)

    def _cheaper(self) -> AbstractContextManager[None]:
        return gradients_in(None if self.trace is None else "bf16", self.s.lookahead_window)

    def step(self, theta: str, grad: tuple[Tensor, ...], k: int) -> str:
        """Write theta^(k), one optimiser step from theta; returns its slot."""
        learner = self.actor.learner
        theta_k = learner.step(grad, k)
        self.measured[f"delta/{k}"] = learner.distance(theta_k, learner.level_slot(k - 1))
        self.measured["grad_norm"] = learner.grad_norm.max()
        self.level = k + 1
        now = perf_counter()
        self.measured[f"time/level_{k}"], self.clock = now - self.clock, now
        return theta_k

    @torch.no_grad()
    def anticipate(self, theta_k: str) -> Tensor:
        """log M_i [T, E, N] when the others follow theta^(k)."""
        data, actor, views = self.batch.data, self.actor, self.actor.learner.views(theta_k)
        if self.trace is None:
            logits, _ = actor.logits(views, data.obs[:-1], self.batch.hidden, data.reset[:-1])
            return self._others(log_prob_entropy(logits, self.avail_actions, data.action)[0])
        dlogits = actor.logit_difference(views, self.trace, self.logits.shape)
        return self._others(self.log_prob + log_prob_difference(self.logits, dlogits, self.avail_actions, data.action))

    def _others(self, log_prob: Tensor) -> Tensor:
        return others_log_ratio(log_prob, self.batch.data.log_prob, self.batch.data.alive[:-1])


def lookahead_mask(mask: Tensor, s: KMappo) -> Tensor:
    """Rows [T, E, N] that levels below K take their gradient from: all, or a share of environments or of windows.

    Windows are dealt out so that every environment gives some, consecutive environments the same ones.
    """
    if s.lookahead_share == 1:
        return mask
    steps, envs = mask.shape[:2]
    if not s.lookahead_window:
        return mask & _spread(torch.arange(envs), s.lookahead_share)[:, None]
    windows = -(-steps // s.lookahead_window)
    turn = torch.arange(steps)[:, None] // s.lookahead_window + torch.arange(envs) * windows // envs
    return mask & _spread(turn % windows, s.lookahead_share)[..., None]


def _spread(index: Tensor, share: float) -> Tensor:
    """Every 1/share-th index."""
    return ((index + 1).double() * share).floor() > (index.double() * share).floor()


def normalise(advantage: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 (of the population, as JaxMARL) over the rows that count."""
    weight = mask.to(advantage.dtype)
    count = weight.sum().clamp_min(1)
    mean = (advantage * weight).sum() / count
    variance = ((advantage - mean).square() * weight).sum() / count
    return (advantage - mean) / (variance.sqrt() + 1e-8)
