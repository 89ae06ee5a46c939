"""Actors and critics as pure functions of a dictionary of parameters.

Every parameter has a leading axis G (parameter sets: 1 if shared, N if each agent has its own), so all agents are one
batched product. Sizes: T steps, E environments, R rows of a parameter set, I inputs, H hidden.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from kpg_fast.kernels.gru import gru
from kpg_fast.kernels.linear import linear

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Network:
    """FC-ReLU-GRU-FC-ReLU-FC, or FC-ReLU-FC-ReLU-FC if not recurrent.

    ``num_ids`` one-hot inputs follow the others where ``num_ids > 0``; they are given by position and never
    materialised: the input product of what the agents share is computed once for all of them.
    """

    in_size: int
    hidden: int
    out_size: int
    recurrent: bool
    out_gain: float
    num_ids: int = 0
    precision: str = "fp32"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter shapes of one set, in their order in memory."""
        i, h = self.in_size, self.hidden
        shapes: dict[str, tuple[int, ...]] = {"in.w": (i, h), "in.b": (h,)}
        if self.num_ids:
            shapes["in.id"] = (self.num_ids, h)
        if self.recurrent:
            shapes |= {"gru.w_x": (h, 3 * h), "gru.b_x": (3 * h,), "gru.w_h": (h, 3 * h), "gru.b_n": (h,)}
        return shapes | {"mid.w": (h, h), "mid.b": (h,), "out.w": (h, self.out_size), "out.b": (self.out_size,)}

    def initialise(self, parameters: Parameters, generator: torch.Generator) -> None:
        """Write JaxMARL's initial values: orthogonal weights, flax's GRU defaults, zero biases."""
        for g in range(parameters["in.w"].shape[0]):
            p = {name: value[g] for name, value in parameters.items()}
            for value in p.values():
                if value.dim() == 1:
                    value.zero_()
            entry = torch.empty(self.in_size + self.num_ids, self.hidden, dtype=p["in.w"].dtype)
            _orthogonal(entry, sqrt(2), generator)
            p["in.w"].copy_(entry[: self.in_size])
            if self.num_ids:
                p["in.id"].copy_(entry[self.in_size :])
            if self.recurrent:
                for w_x, w_h in zip(p["gru.w_x"].chunk(3, 1), p["gru.w_h"].chunk(3, 1), strict=True):
                    _lecun_normal(w_x, generator)
                    _orthogonal(w_h, 1.0, generator)
            _orthogonal(p["mid.w"], 2.0 if self.recurrent else sqrt(2), generator)
            _orthogonal(p["out.w"], self.out_gain, generator)

    def __call__(
        self, p: Parameters, x: Tensor, hidden: Tensor, reset: Tensor, present: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Unroll over time.

        Args:
            p: parameters, each [G, ...].
            x: inputs [G, T, E, n, I], n = rows an environment has in each set (1 where the agents share the input).
            hidden: [G, R, H] before the first step, R = E * max(n, num_ids); unused (any shape) if not recurrent.
            reset: [T, E] bool, true where an episode begins.
            present: [T, E, num_ids] bool; where false, all inputs but the id are zero. None: true everywhere.

        Returns:
            outputs [G, T, E, R / E, out_size] and the hidden states after each step [G, T, R, H] (for a feed-forward
            network an empty tensor).
        """
        g, steps, envs = x.shape[:3]
        y = self._embed(p, x, present)
        rows = y.shape[2]
        if self.recurrent:
            per_row = reset.repeat_interleave(rows // envs, 1)
            weights = (p["gru.w_x"], p["gru.b_x"], p["gru.w_h"], p["gru.b_n"])
            y = gru(y, hidden, per_row, *weights, precision=self.precision)
        hiddens = y if self.recurrent else y.new_empty(0)
        flat = y.reshape(g, steps * rows, self.hidden)
        flat = linear(flat, p["mid.w"], p["mid.b"], activation="relu", precision=self.precision)
        flat = linear(flat, p["out.w"], p["out.b"], precision=self.precision)
        return flat.view(g, steps, envs, rows // envs, self.out_size), hiddens

    def _embed(self, p: Parameters, x: Tensor, present: Tensor | None) -> Tensor:
        g, steps, envs, per_env = x.shape[:4]
        flat = x.reshape(g, steps * envs * per_env, self.in_size)
        if not self.num_ids:
            y = linear(flat, p["in.w"], p["in.b"], activation="relu", precision=self.precision)
            return y.view(g, steps, envs * per_env, self.hidden)
        y = linear(flat, p["in.w"], p["in.b"], precision=self.precision)
        y = y.view(g, steps, envs, per_env, self.hidden)
        if present is not None:
            y = torch.where(present[..., None], y, p["in.b"][:, None, None, None])
        y = y + p["in.id"][:, None, None]
        return torch.relu(y).reshape(g, steps, envs * self.num_ids, self.hidden)

    def hidden_state(self, groups: int, rows: int, dtype: torch.dtype) -> Tensor:
        """Zeros [G, R, H] to begin with."""
        return torch.zeros(groups, rows, self.hidden if self.recurrent else 0, dtype=dtype)


def _orthogonal(weight: Tensor, gain: float, generator: torch.Generator) -> None:
    """Orthogonal columns or rows, whichever are fewer; the distribution of ``jax.nn.initializers.orthogonal``."""
    weight.copy_(torch.nn.init.orthogonal_(torch.empty(weight.shape, dtype=weight.dtype), gain, generator=generator))


def _lecun_normal(weight: Tensor, generator: torch.Generator) -> None:
    """Truncated normal with variance 1 / fan_in, the default of ``flax.linen.Dense``."""
    std = sqrt(1.0 / weight.shape[0]) / 0.87962566103423978  # the standard deviation of a normal cut at +-2
    values = torch.empty(weight.shape, dtype=weight.dtype)
    weight.copy_(torch.nn.init.trunc_normal_(values, 0.0, std, -2 * std, 2 * std, generator=generator))
