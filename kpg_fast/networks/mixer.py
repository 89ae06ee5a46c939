"""The networks that produce the mixer's weights from the state, as QMIX and FACMAC have them, with their gradient.

The formulas are in :mod:`kpg_fast.kernels.hypernetwork`. Sizes: R rows, S state, N agents, M mixer_hidden, Y
hyper_hidden.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kpg_fast.kernels import hypernetwork
from kpg_fast.kernels.layout import Parameters
from kpg_fast.networks.mlp import Buffers, initialise_uniform


class MixerWeights(NamedTuple):
    """What :mod:`kpg_fast.kernels.mixer` takes."""

    w1: Tensor  # [R, N, M]
    b1: Tensor  # [R, M]
    w2: Tensor  # [R, M]
    v: Tensor  # [R]


@dataclass(frozen=True)
class MixerNetwork:
    """Sizes of the networks; parameters have a leading axis of 1, and memory is the caller's."""

    state_size: int
    num_agents: int
    mixer_hidden: int
    hyper_hidden: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter shapes, in their order in memory; the columns of ``state`` are those of w1, w2, v and b1."""
        m, y = self.mixer_hidden, self.hyper_hidden
        first = 2 * y + 2 * m
        return {
            "state.w": (self.state_size, first),
            "state.b": (first,),
            "w1.w": (y, self.num_agents * m),
            "w1.b": (self.num_agents * m,),
            "w2.w": (y, m),
            "w2.b": (m,),
            "v.w": (m, 1),
            "v.b": (1,),
        }

    def initialise(self, p: Parameters, generator: torch.Generator) -> None:
        """The default of ``torch.nn.Linear``, which QMIX keeps."""
        fan_in = {"state": self.state_size, "w1": self.hyper_hidden, "w2": self.hyper_hidden, "v": self.mixer_hidden}
        for name, value in p.items():
            initialise_uniform(value, fan_in[name.partition(".")[0]], generator)

    def forward(self, p: Parameters, state: Tensor, buffers: Buffers, name: str) -> tuple[MixerWeights, Tensor]:
        """Weights for states [R, S], and the first layer's output [1, R, 2 Y + 2 M] for :meth:`gradient`."""
        rows, m = state.shape[0], self.mixer_hidden
        first = buffers(f"{name}.first", 1, rows, 2 * self.hyper_hidden + 2 * m)
        w1, v = buffers(f"{name}.w1", rows, self.num_agents * m), buffers(f"{name}.v", rows, 1)
        b1, w2 = buffers(f"{name}.b1", rows, m), buffers(f"{name}.w2", rows, m)
        hypernetwork.forward(p, state, first, w1, b1, w2, v)
        return MixerWeights(w1.view(rows, self.num_agents, m), b1, w2, v[:, 0]), first

    def gradient(
        self, p: Parameters, state: Tensor, first: Tensor, grads: MixerWeights, buffers: Buffers, out: Parameters
    ) -> None:
        """Write the parameters' gradient for that of the weights to ``out``."""
        scratch = buffers("mixer.scratch", 2, *first.shape[1:])
        dw1, db1, dw2, dv = grads.w1.flatten(1), grads.b1, grads.w2, grads.v[:, None]
        hypernetwork.backward(p, state, first, dw1, db1, dw2, dv, scratch, out)
