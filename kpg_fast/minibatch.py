"""What an update of K-MAPPO learns from: whole environments of a rollout, or stretches of them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kpg_fast.rollout import Rollout, stretches


@dataclass
class Minibatch:
    """Samples of a rollout with their advantages; all [T, E, N, ...], E being environments or stretches of them."""

    data: Rollout
    hidden: Tensor  # [G, R, H] of the actor at the first step
    critic_hidden: Tensor  # [1, E * N, H]
    value: Tensor
    advantage: Tensor
    returns: Tensor
    mask: Tensor  # rows that count for the actors
    value_mask: Tensor  # and for the critic

    def select(self, samples: Tensor, actor_groups: int, dtype: torch.dtype) -> "Minibatch":
        """The given samples alone, copied, with real numbers in ``dtype``."""
        n = self.value.shape[2]
        return replace(
            self,
            data=self.data.select(samples, dtype),
            hidden=per_env(self.hidden, n // actor_groups)[:, samples].flatten(1, 2),
            critic_hidden=per_env(self.critic_hidden, n)[:, samples].flatten(1, 2),
            **{name: getattr(self, name).index_select(1, samples) for name in _PER_AGENT},
        )

    def stretches(self, length: int, actor_hiddens: Tensor, critic_hiddens: Tensor) -> "Minibatch":
        """The same as samples of ``length`` steps, number c * E + e being stretch c of environment e.

        Args:
            length: divides T.
            actor_hiddens: [G, T, R, H] after each step; a stretch begins with the state the actor was in then, and
                nothing is learned beyond its begin.
            critic_hiddens: [1, >= T, E * N, H], the critic's.
        """
        t = len(self.value)
        return replace(
            self,
            data=self.data.stretches(length),
            hidden=_starts(self.hidden, actor_hiddens, t, length),
            critic_hidden=_starts(self.critic_hidden, critic_hiddens, t, length),
            **{name: stretches(getattr(self, name), length) for name in _PER_AGENT},
        )


_PER_AGENT = ("value", "advantage", "returns", "mask", "value_mask")


def per_env(hidden: Tensor, rows: int) -> Tensor:
    """[X, E * rows, H] as [X, E, rows, H]."""
    return hidden.view(hidden.shape[0], hidden.shape[1] // rows, rows, hidden.shape[2])


def _starts(first: Tensor, hiddens: Tensor, steps: int, length: int) -> Tensor:
    """The hidden states [G, C * R, H] before the first step of each of C stretches."""
    if not hiddens.numel():  # a feed-forward network has none
        return first.repeat(1, steps // length, 1)
    later = hiddens[:, length - 1 : steps - 1 : length]
    return torch.cat([first[:, None], later], 1).flatten(1, 2)
