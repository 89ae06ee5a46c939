"""Perceptrons with two hidden layers whose gradient is taken by hand, for updates too small to afford autograd.

Rows are [G, R, features] and every parameter has a leading axis G of independent sets, so all agents are one pass of
:mod:`kpg_fast.kernels.mlp`. Sizes: G parameter sets, R rows of each, I inputs, H hidden.
"""

from dataclasses import dataclass
from math import prod, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from kpg_fast.kernels import mlp
from kpg_fast.kernels.layout import Parameters


class Buffers:
    """Memory of intermediate results by name, kept from update to update and grown when more rows come."""

    def __init__(self, dtype: torch.dtype, device: torch.device | None = None) -> None:
        self.dtype, self.device = dtype, device
        self._flat: dict[str, Tensor] = {}
        self._views: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """Memory of this shape; what it held before is lost."""
        view = self._views.get((name, shape))
        if view is None:
            view = self._views[name, shape] = self._enough(name, prod(shape)).view(shape)
        return view

    def _enough(self, name: str, size: int) -> Tensor:
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size:
            flat = self._flat[name] = torch.empty(size, dtype=self.dtype, device=self.device)
            self._views = {key: view for key, view in self._views.items() if key[0] != name}
        return flat[:size]


class Tape(NamedTuple):
    """A forward pass: inputs and what every layer gave, [G, R, ...]."""

    x: Tensor
    h1: Tensor
    h2: Tensor
    y: Tensor


class Deltas(NamedTuple):
    """Gradients at the three layers' outputs before the activation, [G, R, ...]; linear in the output's gradient."""

    h1: Tensor
    h2: Tensor
    y: Tensor


@dataclass(frozen=True)
class Mlp:
    """The sizes of a network; parameters and memory are the caller's."""

    in_size: int
    hidden: int
    out_size: int
    precision: str = "fp32"
    """``bf16``: the factors of the hidden layer's products are rounded to bfloat16."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter shapes of one set, in their order in memory."""
        i, h, o = self.in_size, self.hidden, self.out_size
        return {"in.w": (i, h), "in.b": (h,), "mid.w": (h, h), "mid.b": (h,), "out.w": (h, o), "out.b": (o,)}

    def forward(self, p: Parameters, x: Tensor, buffers: Buffers, name: str) -> Tape:
        """The network at rows ``x`` [G, R, I], written to buffers whose names begin with ``name``."""
        g, rows = p["in.w"].shape[0], x.shape[1]
        h1 = buffers(f"{name}.h1", g, rows, self.hidden)
        h2 = buffers(f"{name}.h2", g, rows, self.hidden)
        y = buffers(f"{name}.y", g, rows, self.out_size)
        mlp.forward(p, x, h1, h2, y, self.precision)
        return Tape(x, h1, h2, y)

    def deltas(self, p: Parameters, tape: Tape, dy: Tensor, buffers: Buffers, name: str) -> Deltas:
        """Propagate the output's gradient ``dy`` [G, R, out] back through the layers."""
        d1, d2 = buffers(f"{name}.d1", *tape.h1.shape), buffers(f"{name}.d2", *tape.h2.shape)
        mlp.deltas(p, tape.x, tape.h1, tape.h2, dy, d1, d2, self.precision)
        return Deltas(d1, d2, dy)

    def gradient(self, tape: Tape, deltas: Deltas, out: Parameters) -> None:
        """Write the parameters' gradient, summed over rows, to ``out``."""
        mlp.gradient(out, tape.x, tape.h1, tape.h2, deltas.h1, deltas.h2, deltas.y, self.precision)

    def initialise(self, p: Parameters, generator: torch.Generator) -> None:
        """Uniform in +-1 / sqrt(inputs), weights and biases: the default of ``torch.nn.Linear``, which FACMAC keeps."""
        for layer, fan_in in (("in", self.in_size), ("mid", self.hidden), ("out", self.hidden)):
            for kind in ("w", "b"):
                initialise_uniform(p[f"{layer}.{kind}"], fan_in, generator)


def initialise_uniform(parameter: Tensor, fan_in: int, generator: torch.Generator) -> None:
    """Uniform in +-1 / sqrt(fan_in)."""
    bound = 1 / sqrt(fan_in)
    values = torch.empty(parameter.shape, dtype=parameter.dtype)
    parameter.copy_(values.uniform_(-bound, bound, generator=generator))
