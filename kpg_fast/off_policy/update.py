"""What K-MADDPG and K-FACMAC share: one critic step, one K-level actor step, targets that follow.

    theta_i^(k) = theta_i - eta * grad_i [ -J_i(mu_{theta_i}, mu_{theta_j^(k-1)}) + actor_reg * mean(mu_{theta_i}^2) ]

J_i is the critic's value of one live agent among the others' fixed actions. The two algorithms differ in what they take
the others to do at level 1, in what they keep of the others' actions, and in J_i's slope at the own action.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from time import perf_counter
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from kpg_fast.envs import EnvSpec
from kpg_fast.kernels.level_step.ref import ALPHA, BETAS
from kpg_fast.kpg import k_level_update
from kpg_fast.networks.mlp import Buffers, Deltas
from kpg_fast.off_policy.actor import Actor, Own
from kpg_fast.off_policy.experience import Batch
from kpg_fast.off_policy.settings import OffPolicy
from kpg_fast.store.learner import Learner

Prepared = TypeVar("Prepared")


class Slope(NamedTuple):
    """d J_i / d a_i = scale_i * unit_i; where ``unit`` is the same at every level, a level reuses its way back."""

    unit: Tensor  # [N, R, A]
    scale: Tensor  # [N, R]
    is_fixed: bool


class OffPolicyAlgorithm(ABC, Generic[Prepared]):
    """The update of one minibatch; actors and critics are the caller's to initialise.

    Args:
        spec: of the environment.
        settings: see :class:`OffPolicy`.
        levels: K.
        inputs: I, the size of the actors' observation with what is appended to it.
        dtype: float32, or float64 for tests.
        debug_drift: verify after every level that theta and the optimiser state are untouched.
        precision: of the perceptrons' products, see :mod:`kpg_fast.kernels.mlp`.
        device: where everything lies.
    """

    critic: Learner

    def __init__(
        self,
        spec: EnvSpec,
        settings: OffPolicy,
        levels: int,
        inputs: int,
        dtype: torch.dtype,
        debug_drift: bool = False,
        precision: str = "fp32",
        device: torch.device | None = None,
    ) -> None:
        self.spec, self.settings, self.levels = spec, settings, levels
        self.actor = Actor(spec, settings, inputs, dtype, debug_drift, precision, device)
        self.buffers = Buffers(dtype, device)
        self.updates = 0

    def critic_learner(self, shapes: Mapping[str, tuple[int, ...]], groups: int) -> Learner:
        """The critics' parameters and targets."""
        s, dtype, device = self.settings, self.actor.learner.dtype, self.actor.device
        more = ("target",)
        return Learner(
            shapes, groups, s.optimizer, s.critic_lr, s.max_grad_norm, s.eps, dtype, more_slots=more, device=device
        )

    @abstractmethod
    def initialise_critic(self, generator: torch.Generator) -> None:
        """Random parameters of all critics."""

    @abstractmethod
    def critic_gradient(self, batch: Batch) -> dict[str, Tensor]:
        """Write the critics' gradient; returns ``critic_loss`` and ``q_mean``."""

    @abstractmethod
    def prepare(self, batch: Batch, own: Own) -> Prepared:
        """What all levels need of the critics at the own actions."""

    @abstractmethod
    def level_one_others(self, batch: Batch, own: Own, prepared: Prepared) -> Tensor:
        """What level 1 takes the others to do."""

    @abstractmethod
    def slope(self, batch: Batch, own: Own, prepared: Prepared, others: Tensor) -> Slope:
        """d J_i / d a_i for all agents, the others being one level down; rows are weighted."""

    @abstractmethod
    def respond(self, batch: Batch, action: Tensor) -> Tensor:
        """What is kept of the actions [N, R, A] of the level-k policies."""

    def initialise(self, generator: torch.Generator) -> None:
        """Random parameters; the targets begin as copies."""
        self.actor.initialise(generator)
        self.initialise_critic(generator)
        self.critic.store.copy("theta", "target")

    def update(self, batch: Batch, generator: torch.Generator, measure: bool = False) -> dict[str, Any]:
        """Critics once, actors once, targets once.

        Args:
            batch: from :class:`kpg_fast.off_policy.experience.Experience`.
            generator: draws the noise of discrete actions.
            measure: also how far every level moved, and how long it took.

        Returns:
            Scalars as tensors, seconds under ``time/``.
        """
        self.correct_rates()
        measured = self.learn(batch, self.actor.noise(batch, generator), measure)
        self.count()
        return measured

    def learn(self, batch: Batch, noise: Tensor | None, measure: bool = False) -> dict[str, Any]:
        """The part of :meth:`update` that is the same every time: what a card captures."""
        start = perf_counter()
        measured: dict[str, Any] = self.critic_gradient(batch)
        self.critic.commit(self.critic.step(tuple(self.critic.views("grad").values()), 1))
        between = perf_counter()
        measured |= self.update_actor(batch, noise, measure)
        if not self.settings.target_interval:
            for learner in self.learners:
                learner.store.polyak("theta", "target", self.settings.tau)
        measured["critic_grad_norm"] = self.critic.grad_norm.max()
        return measured | {"time/critic": between - start, "time/levels": perf_counter() - between}

    def count(self) -> None:
        """An update has been made, or queued; every ``target_interval`` of them the targets become copies."""
        self.updates += 1
        if self.settings.target_interval and self.updates % self.settings.target_interval == 0:
            for learner in self.learners:
                learner.store.copy("theta", "target")

    def update_actor(self, batch: Batch, noise: Tensor | None, measure: bool = False) -> dict[str, Any]:
        """One K-level step of the actors."""
        actor, learner, clock = self.actor, self.actor.learner, [perf_counter()]
        measured: dict[str, Any] = {}
        own = actor.own(batch, noise)
        prepared = self.prepare(batch, own)
        way_back = WayBack(actor, own, actor.regulariser(batch, own), self.levels)

        def policy_gradient(theta: str, others: Tensor) -> tuple[Tensor, ...]:
            return way_back(self.slope(batch, own, prepared, others))

        def step(theta: str, grad: tuple[Tensor, ...], k: int) -> str:
            theta_k = learner.step(grad, k)
            if measure:
                measured[f"delta/{k}"] = learner.distance(theta_k, learner.level_slot(k - 1))
                clock.append(perf_counter())
                measured[f"time/level_{k}"] = clock[-1] - clock[-2]
            return theta_k

        def anticipate(theta_k: str) -> Tensor:
            return self.respond(batch, actor.actions(theta_k, batch, noise))

        level_one = self.level_one_others(batch, own, prepared)
        learner.commit(k_level_update("theta", self.levels, level_one, policy_gradient, step, anticipate))
        return measured | {"grad_norm": learner.grad_norm.max()}

    @property
    def learners(self) -> tuple[Learner, Learner]:
        """Actors and critics."""
        return self.actor.learner, self.critic

    def correct_rates(self) -> None:
        """lr g / (sqrt(v / c) + eps) = lr sqrt(c) g / (sqrt(v) + eps sqrt(c)), c = 1 - alpha^t."""
        for learner in self.learners:
            learner.correction = self._correction(learner.steps + 1)

    def _correction(self, step: int) -> float:
        s = self.settings
        return (1 - ALPHA**step) ** 0.5 if s.optimizer == "rmsprop" and s.rmsprop_correction else 1.0

    def rates(self, ahead: int) -> list[tuple[float, float]]:
        """The two factors of the actors' and of the critics' step ``ahead`` updates from now, as a card reads them."""
        from kpg_fast.kernels.level_step.gpu import step_sizes  # here, because it imports Triton

        found = []
        for learner in self.learners:
            step = learner.steps + 1 + ahead
            size, root = step_sizes(learner.optimizer, learner.lr, BETAS, step)
            found.append((size, root / self._correction(step)))
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Parameters, targets and optimiser states, for an exact resume."""
        parts = {"actor": self.actor.learner, "critic": self.critic}
        return {f"{part}/{name}": value for part, learner in parts.items() for name, value in learner.tensors().items()}

    def counters(self) -> dict[str, int]:
        """The rest of it."""
        return {"learned": self.updates, "actor_steps": self.actor.learner.steps, "critic_steps": self.critic.steps}

    def restore_counters(self, counters: Mapping[str, int]) -> None:
        """Continue where :meth:`counters` was taken."""
        self.updates = counters["learned"]
        self.actor.learner.steps, self.critic.steps = counters["actor_steps"], counters["critic_steps"]


class WayBack:
    """From J_i's slope at the own actions to the gradient of the actors' loss, through the pass all levels share.

    The way back is linear: where the slope only changes its scale from level to level, its direction and that of the
    regulariser are propagated once, and a level is one product with the layers' inputs.
    """

    def __init__(self, actor: Actor, own: Own, regulariser: Tensor | None, levels: int) -> None:
        self.actor, self.own, self.regulariser = actor, own, regulariser
        # propagating two directions once or their sum at every level: below this it costs no less
        self.worth_it = not actor.network.recurrent and levels >= (2 if regulariser is None else 3)
        self._directions: tuple[Deltas, Deltas | None] | None = None

    def __call__(self, slope: Slope) -> tuple[Tensor, ...]:
        """The gradient of every parameter, [G, ...]."""
        network: Any = self.actor.network
        if slope.is_fixed and self.worth_it:
            deltas: Any = self._combined(slope)
        else:
            at_output = self.own.slope(slope.unit * -slope.scale[..., None])
            if self.regulariser is not None:
                at_output = at_output + self.regulariser
            deltas = network.deltas(self.actor.learner, self.own.outputs, at_output, "level")
        return tuple(network.gradient(self.actor.learner, self.own.outputs, deltas))

    def _combined(self, slope: Slope) -> Deltas:
        if self._directions is None:
            self._directions = (
                self._propagate(self.own.slope(slope.unit), "unit"),
                None if self.regulariser is None else self._propagate(self.regulariser, "regulariser"),
            )
        unit, fixed = self._directions
        scale = -slope.scale.reshape(*unit.y.shape[:2], 1)
        layers = []
        for name, of_unit in zip(("h1", "h2", "y"), unit, strict=True):
            into = self.actor.buffers(f"actor.combined.{name}", *of_unit.shape)
            if fixed is None:
                layers.append(torch.mul(of_unit, scale, out=into))
            else:
                layers.append(torch.addcmul(getattr(fixed, name), of_unit, scale, out=into))
        return Deltas(*layers)

    def _propagate(self, at_output: Tensor, name: str) -> Deltas:
        network: Any = self.actor.network
        deltas: Deltas = network.deltas(self.actor.learner, self.own.outputs, at_output, name)
        return deltas


def td_targets(batch: Batch, q_next: Tensor, gamma: float, td_lambda: float) -> Tensor:
    """Lambda returns [..., R] from the targets' values after every step, ``q_next`` [..., R].

    y_t = r_t + gamma (1 - terminated_t) ((1 - lambda) q'_{t+1} + lambda y_{t+1}), with q'_{t+1} for y_{t+1} after the
    last stored step: it bootstraps at a time limit. With one step (transitions) it is r + gamma (1 - terminated) q'.
    """
    t = batch.steps
    if t == 1:
        return batch.reward + gamma * (1 - batch.terminated) * q_next
    by_step = q_next.view(*q_next.shape[:-1], t, -1)
    reward, goes_on, last = (x.view(t, -1) for x in (batch.reward, 1 - batch.terminated, batch.last))
    targets = torch.empty_like(by_step)
    following = by_step[..., -1, :]
    for step in reversed(range(t)):
        bootstrap = by_step[..., step, :]
        mixed = torch.where(last[step], bootstrap, (1 - td_lambda) * bootstrap + td_lambda * following)
        following = reward[step] + gamma * goes_on[step] * mixed
        targets[..., step, :] = following
    return targets.flatten(-2)
