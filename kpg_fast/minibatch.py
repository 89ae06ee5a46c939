"""What an update of K-MAPPO learns from: whole environments of a rollout, or stretches of them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kpg_fast.rollout import Rollout, map_tensors, stretches
from kpg_fast.seeds import split, take


@dataclass
class Minibatch:
    """Samples of a rollout with their advantages; all [S, T, E, N, ...], E being environments or stretches of them."""

    data: Rollout
    hidden: Tensor  # [S, g, E, R, H] of the actors at the first step: g parameter sets of R rows an environment
    critic_hidden: Tensor  # [S, 1, E, N, H]
    value: Tensor
    advantage: Tensor
    returns: Tensor
    mask: Tensor  # rows that count for the actors
    value_mask: Tensor  # and for the critic

    def select(self, samples: Tensor, dtype: torch.dtype) -> "Minibatch":
        """The given samples [S, B] alone, each seed's own, copied, with real numbers of the rollout in ``dtype``."""
        return replace(map_tensors(self, lambda x: take(x, samples)), data=self.data.select(samples, dtype))

    def seed(self, index: int) -> "Minibatch":
        """One seed's part, without the axis S."""
        return replace(map_tensors(self, lambda x: x[index]), data=map_tensors(self.data, lambda x: x[index]))

    def stretches(self, length: int, actor_hiddens: Tensor, critic_hiddens: Tensor) -> "Minibatch":
        """The same as samples of ``length`` steps, number c * E + e being stretch c of environment e.

        Args:
            length: divides T.
            actor_hiddens: [G, T, E * R, H] after each step; a stretch begins with the state the actor was in then, and
                nothing is learned beyond its begin.
            critic_hiddens: [S, >= T, E * N, H], the critic's.
        """
        t = self.value.shape[1]
        return replace(
            self,
            data=map_tensors(self.data, lambda x: stretches(x, length)),
            hidden=_starts(self.hidden, actor_hiddens, t, length),
            critic_hidden=_starts(self.critic_hidden, critic_hiddens, t, length),
            **{name: stretches(getattr(self, name), length) for name in _PER_AGENT},
        )


_PER_AGENT = ("value", "advantage", "returns", "mask", "value_mask")


def per_env(hidden: Tensor, rows: int) -> Tensor:
    """[X, E * rows, H] as [X, E, rows, H]."""
    return split(hidden, 1, hidden.shape[1] // rows)


def _starts(first: Tensor, hiddens: Tensor, steps: int, length: int) -> Tensor:
    """The hidden states [S, g, C * E, R, H] before the first step of each of C stretches of every environment."""
    if not hiddens.numel():  # a feed-forward network has none
        return first.repeat(1, 1, steps // length, 1, 1)
    later = hiddens[:, length - 1 : steps - 1 : length]  # [G, C - 1, E * R, H]
    later = split(split(later, 0, len(first)), 3, first.shape[2])
    return torch.cat([first[:, :, None], later], 2).flatten(2, 3)
