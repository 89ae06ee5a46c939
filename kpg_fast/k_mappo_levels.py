"""What Algorithm 1 (kpg.py) asks of K-MAPPO on one minibatch: a policy gradient, a step, and what the others will do.

Theta is the same at every level, so the pass of the own policies is done once; a level pays its backward pass and
``anticipate``. In the precisions ``mixed-lookahead`` and ``bf16``, ``anticipate`` carries the difference between theta
and theta^(k) through the network (:mod:`kpg_fast.kernels.lookahead`) and adds it to log pi_theta, and the gradients of
levels below K run in bfloat16: they only make the weights M_i.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from kpg_fast.config import Config
from kpg_fast.k_mappo_settings import KMappo
from kpg_fast.kernels.k_level_surrogate import others_log_ratio
from kpg_fast.kernels.layout import gradients_in
from kpg_fast.minibatch import Minibatch
from kpg_fast.networks.actor_critic import Trace
from kpg_fast.policies import Actor
from kpg_fast.seeds import per_seed, split, total
from kpg_fast.stopwatch import Stopwatch


class Levels:
    """The levels of one minibatch; ``measured`` collects tensors [S, ...] by the names of metrics."""

    def __init__(
        self, config: Config, actor: Actor, batch: Minibatch, watch: Stopwatch, clips: Tensor | None = None
    ) -> None:
        self.config, self.s, self.actor, self.batch, self.watch = config, config.k_mappo, actor, batch, watch
        self.policy = actor.distribution
        self.clips, self.level = clips, 1
        self.measured: dict[str, Tensor] = {}
        carried = config.precision != "fp32" and config.levels > 1 and actor.learner.dtype == torch.float32
        self.trace: Trace | None = {} if carried else None
        self.leaves = actor.learner.leaves()
        data = batch.data
        self.obs, self.reset, self.avail_actions = data.obs[:, :-1], data.reset[:, :-1], data.avail_actions[:, :-1]
        self.advantage = per_seed(normalise, batch.advantage, batch.mask)
        self.outputs, _ = actor.outputs(self.leaves, self.obs, batch.hidden, self.reset, self.trace)
        self.log_prob = torch.empty(0)

    def level_one_others(self) -> Tensor | None:
        """What level 1 takes the others to do: nothing new, or their current policies."""
        if self.s.level1_others == "base":
            return None
        return self._others(self.policy.log_prob(self.outputs, self.avail_actions, self.batch.data.action))

    def policy_gradient(self, theta: str, others: Tensor | None) -> tuple[Tensor, ...]:
        """grad_i J_i(theta_i, others) for all agents, in the layout's order."""
        s, data, last = self.s, self.batch.data, self.level == self.config.levels
        mask = self.batch.mask if last else lookahead_mask(self.batch.mask, s)
        surrogates = [
            self.policy.surrogate(
                outputs,
                self.avail_actions[seed],
                data.action[seed],
                data.log_prob[seed],
                self.advantage[seed],
                mask[seed],
                None if others is None else others[seed],
                clip_eps=s.clip_eps,
                ent_coef=s.ent_coef,
                clip_mode=s.clip_mode,
                others_clip_eps=s.clip_eps_others,
                clips=self.clips,
            )
            for seed, outputs in enumerate(self.outputs.unbind())
        ]
        self.log_prob = torch.stack([surrogate.log_prob for surrogate in surrogates])
        self.measured["surrogate"] = torch.stack([surrogate.stats for surrogate in surrogates])
        if others is not None:
            self.measured["log_m"] = others.masked_fill(~data.alive[:, :-1] | ~data.valid[..., None], math.nan)
        losses = [surrogate.loss for surrogate in surrogates]
        with nullcontext() if last else self._cheaper():
            return torch.autograd.grad(losses, list(self.leaves.values()), retain_graph=not last)

    def _cheaper(self) -> AbstractContextManager[None]:
        return gradients_in(None if self.trace is None else "bf16", self.s.lookahead_window)

    def step(self, theta: str, grad: tuple[Tensor, ...], k: int) -> str:
        """Write theta^(k), one optimiser step from theta; returns its slot."""
        learner, seeds = self.actor.learner, len(self.actor.seeds)
        theta_k = learner.step(grad, k)
        levels = (split(learner.store.slot(slot), 0, seeds) for slot in (theta_k, learner.level_slot(k - 1)))
        self.measured[f"delta/{k}"] = per_seed(_distance, *levels)
        self.measured["grad_norm"] = learner.grad_norm.view(seeds, -1).amax(1)
        self.level = k + 1
        self.watch.lap(f"level_{k}")
        return theta_k

    @torch.no_grad()
    def anticipate(self, theta_k: str) -> Tensor:
        """log M_i [S, T, E, N] when the others follow theta^(k)."""
        data, actor, views = self.batch.data, self.actor, self.actor.learner.views(theta_k)
        if self.trace is None:
            outputs, _ = actor.outputs(views, self.obs, self.batch.hidden, self.reset)
            return self._others(self.policy.log_prob(outputs, self.avail_actions, data.action))
        change = actor.output_difference(views, self.trace, self.outputs.shape)
        difference = self.policy.log_prob_difference(self.outputs, change, self.avail_actions, data.action)
        return self._others(self.log_prob + difference)

    def _others(self, log_prob: Tensor) -> Tensor:
        data = self.batch.data
        rows = (log_prob, data.log_prob, data.alive[:, :-1])
        return others_log_ratio(*(x.flatten(0, 1) for x in rows)).view_as(log_prob)


def lookahead_mask(mask: Tensor, s: KMappo) -> Tensor:
    """Rows [S, T, E, N] that levels below K take their gradient from: all, or a share of environments or of windows.

    Windows are dealt out so that every environment gives some, consecutive environments the same ones.
    """
    if s.lookahead_share == 1:
        return mask
    steps, envs = (torch.arange(size, device=mask.device) for size in mask.shape[1:3])
    if not s.lookahead_window:
        return mask & _spread(envs, s.lookahead_share)[:, None]
    windows = -(-len(steps) // s.lookahead_window)
    turn = steps[:, None] // s.lookahead_window + envs * windows // len(envs)
    return mask & _spread(turn % windows, s.lookahead_share)[..., None]


def _spread(index: Tensor, share: float) -> Tensor:
    """Every 1/share-th index."""
    return ((index + 1).double() * share).floor() > (index.double() * share).floor()


def normalise(advantage: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 (of the population, as JaxMARL) over a seed's rows [S, T, E, N] that count."""
    weight = mask.to(advantage.dtype)
    count = total(weight).clamp_min(1)
    mean = total(advantage * weight) / count
    variance = total((advantage - mean).square() * weight) / count
    return (advantage - mean) / (variance.sqrt() + 1e-8)


def _distance(theta_k: Tensor, before: Tensor) -> Tensor:
    """Sum [S] over a seed's parameter sets [S, g, P] of their Euclidean distance."""
    return (theta_k - before).square().sum(2).sqrt().sum(1)
