"""The networks that produce the mixer's weights from the state, as QMIX and FACMAC have them, with their gradient.

    w1 = relu(s A + a) B + b        w2 = relu(s C + c) D + d        b1 = s E + e        v = relu(s F + f) G + g

The four first layers are one product. Sizes: R rows, S state, N agents, M mixer_hidden, Y hyper_hidden.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kpg_fast.networks.mlp import Buffers, Parameters, affine, affine_gradient, initialise_uniform, through_relu


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

        def layer(part: str, x: Tensor) -> Tensor:
            b = p[f"{part}.b"]
            return affine(p[f"{part}.w"], b, x, buffers(f"{name}.{part}", 1, rows, b.shape[1]))

        first = layer("state", state[None])
        first[..., :-m].relu_()
        second = {part: layer(part, x) for part, x in self._inputs(first).items()}
        w1 = second["w1"].view(rows, self.num_agents, m)
        return MixerWeights(w1, first[0, :, -m:].contiguous(), second["w2"][0], second["v"].view(rows)), first

    def gradient(
        self, p: Parameters, state: Tensor, first: Tensor, grads: MixerWeights, buffers: Buffers, out: Parameters
    ) -> None:
        """Write the parameters' gradient for that of the weights to ``out``."""
        rows = state.shape[0]
        at_first = buffers("mixer.dfirst", *first.shape)
        inputs, into = self._inputs(first), self._inputs(at_first)
        for part, delta in (("w1", grads.w1), ("w2", grads.w2), ("v", grads.v)):
            delta = delta.reshape(1, rows, -1)
            affine_gradient(inputs[part], delta, out[f"{part}.w"], out[f"{part}.b"])
            into[part].copy_(torch.matmul(delta, p[f"{part}.w"].mT))
        at_first[0, :, -self.mixer_hidden :] = grads.b1
        hidden = at_first[..., : -self.mixer_hidden]
        through_relu(hidden, first[..., : -self.mixer_hidden])
        affine_gradient(state[None], at_first, out["state.w"], out["state.b"])

    def _inputs(self, first: Tensor) -> dict[str, Tensor]:
        """The parts of the first layer that the second layers take."""
        y, m = self.hyper_hidden, self.mixer_hidden
        return {"w1": first[..., :y], "w2": first[..., y : 2 * y], "v": first[..., 2 * y : 2 * y + m]}
