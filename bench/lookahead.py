"""How faithful a cheaper lookahead is: the correction theta^(K) - theta^(1) it makes, against the exact one.

The correction is all that K levels add to the base algorithm, and a small part of the step: theta^(K) itself would look
right whatever the lookahead did. K = 1 leaves it out: cosine 0, relative error 1.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from kpg_fast.config import Config
from kpg_fast.k_mappo import KMappo
from kpg_fast.k_mappo_trainer import KMappoTrainer, build_actor
from kpg_fast.minibatch import Minibatch
from kpg_fast.rollout import Rollout


@dataclass(frozen=True)
class Fidelity:
    """A correction beside the exact one."""

    cosine: float
    relative_error: float


def correction(trainer: KMappoTrainer, batch: Minibatch, lr: float, dtype: torch.dtype, **values: Any) -> Tensor:
    """theta^(K) less what K = 1 would commit, [G, P] as float64, from the trainer's theta and optimiser, which stay.

    Args:
        trainer: where theta, the optimiser and K come from.
        batch: the minibatch, in float32.
        lr: learning rate of the step.
        dtype: in which everything is computed; float64 is exact.
        values: settings that differ from the trainer's.
    """
    k, one = (committed(trainer, batch, lr, dtype, **(values | levels)) for levels in ({}, {"levels": 1}))
    return k - one


def committed(trainer: KMappoTrainer, batch: Minibatch, lr: float, dtype: torch.dtype, **values: Any) -> Tensor:
    """theta^(K) [G, P] as float64; arguments as of :func:`correction`."""
    given = {f.name: getattr(trainer.config.settings, f.name) for f in fields(trainer.config.settings)}
    own = {"levels": trainer.config.levels, "preset": trainer.config.preset}
    config = Config.make("k-mappo", trainer.config.env, **(given | own | values))
    actor, learner = build_actor(config, trainer.env.spec, dtype), trainer.actor.learner
    for slot in ("theta", *learner.moments):
        actor.learner.store.slot(slot).copy_(learner.store.slot(slot))
    actor.learner.steps, actor.learner.lr = learner.steps, lr
    KMappo(config, actor, trainer.critic).update_actor(converted(batch, dtype))
    return actor.learner.store.slot("theta").double()


def converted(batch: Minibatch, dtype: torch.dtype) -> Minibatch:
    """The minibatch with real numbers in ``dtype``."""

    def convert(owner: Minibatch | Rollout) -> dict[str, Any]:
        tensors = {f.name: getattr(owner, f.name) for f in fields(owner)}
        return {n: t.to(dtype) for n, t in tensors.items() if isinstance(t, Tensor) and t.is_floating_point()}

    return replace(batch, data=replace(batch.data, **convert(batch.data)), **convert(batch))


def compare(ours: Tensor, exact: Tensor) -> Fidelity:
    """Cosine and relative error over all parameters."""
    cosine = torch.cosine_similarity(ours.flatten(), exact.flatten(), dim=0)
    return Fidelity(float(cosine), float((ours - exact).norm() / exact.norm()))


def next_minibatch(trainer: KMappoTrainer) -> Minibatch:
    """The first minibatch of the trainer's next rollout."""
    hiddens = trainer.actor.hidden, trainer.critic.hidden
    trainer.rollout.collect(trainer.env, trainer.actor, trainer.updates * trainer.config.k_mappo.num_steps)
    whole = trainer.whole_batch(*hiddens)
    s = trainer.config.k_mappo
    samples = torch.arange(s.num_samples // s.num_minibatches)
    return whole.select(samples, trainer.actor.learner.groups, trainer.dtype)
