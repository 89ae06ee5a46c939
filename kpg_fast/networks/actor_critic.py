"""Actors and critics as pure functions of a dictionary of parameters.

Every parameter has a leading axis G (parameter sets: 1 if shared, N if each agent has its own), so all agents are one
batched product. Sizes: T steps, E environments, R rows of a parameter set, I inputs, H hidden.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from kpg_fast.kernels.agent_embedding import agent_embedding
from kpg_fast.kernels.gru import gru, gru_and_gates
from kpg_fast.kernels.layout import Parameters
from kpg_fast.kernels.linear import linear, linear_and_sums
from kpg_fast.kernels.lookahead import Weights, gru_difference, linear_difference, relu_difference

Trace = dict[str, Tensor]
"""What a pass keeps for :meth:`Network.difference`: the inputs of the layers, and what activations were applied to."""


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
        self,
        p: Parameters,
        x: Tensor,
        hidden: Tensor,
        reset: Tensor,
        present: Tensor | None = None,
        trace: Trace | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Unroll over time.

        Args:
            p: parameters, each [G, ...].
            x: inputs [G, T, E, n, I], n = rows an environment has in each set (1 where the agents share the input).
            hidden: [G, R, H] before the first step, R = E * max(n, num_ids); unused (any shape) if not recurrent.
            reset: [G, T, E] bool, or [T, E] (or [1, T, E]) for all sets; true where an episode begins.
            present: [G, T, E, num_ids] bool; where false, all inputs but the id are zero. None: true everywhere.
            trace: filled with what :meth:`difference` starts from; float32 only.

        Returns:
            outputs [G, T, E, R / E, out_size] and the hidden states after each step [G, T, R, H] (for a feed-forward
            network an empty tensor).
        """
        g, steps, envs = x.shape[:3]
        y = self._embed(p, x, present, trace)
        rows = y.shape[2]
        if self.recurrent:
            per_row = (reset[0] if len(reset) == 1 and reset.dim() == 3 else reset).repeat_interleave(rows // envs, -1)
            y = self._unroll(p, y, hidden, per_row, trace)
        hiddens = y if self.recurrent else y.new_empty(0)
        flat = self._relu_layer(p, "mid", y.reshape(g, steps * rows, self.hidden), trace)
        if trace is not None:
            trace["out.x"] = flat
        flat = linear(flat, p["out.w"], p["out.b"], precision=self.precision)
        return flat.view(g, steps, envs, rows // envs, self.out_size), hiddens

    def _embed(self, p: Parameters, x: Tensor, present: Tensor | None, trace: Trace | None) -> Tensor:
        g, steps, envs, per_env = x.shape[:4]
        flat = x.reshape(g, steps * envs * per_env, self.in_size)
        if not self.num_ids:
            return self._relu_layer(p, "in", flat, trace).view(g, steps, envs * per_env, self.hidden)
        y = linear(flat, p["in.w"], p["in.b"], precision=self.precision)
        if per_env == 1 and present is None and trace is None:
            return agent_embedding(y, p["in.id"]).view(g, steps, envs * self.num_ids, self.hidden)
        y = y.view(g, steps, envs, per_env, self.hidden)
        if present is not None:
            y = torch.where(present[..., None], y, p["in.b"][:, None, None, None])
        y = y + p["in.id"][:, None, None]
        if trace is not None:
            trace |= {"in.x": flat, "in.sums": y.detach()}
        return torch.relu(y).reshape(g, steps, envs * self.num_ids, self.hidden)

    def _relu_layer(self, p: Parameters, name: str, x: Tensor, trace: Trace | None) -> Tensor:
        w, b = p[f"{name}.w"], p[f"{name}.b"]
        if trace is None:
            return linear(x, w, b, activation="relu", precision=self.precision)
        y, sums = linear_and_sums(x, w, b, self.precision)
        trace |= {f"{name}.x": x, f"{name}.sums": sums}
        return y

    def _unroll(self, p: Parameters, x: Tensor, hidden: Tensor, reset: Tensor, trace: Trace | None) -> Tensor:
        if trace is None:
            return gru(x, hidden, reset, *_gru_weights(p), precision=self.precision)
        h, gates = gru_and_gates(x, hidden, reset, *_gru_weights(p), precision=self.precision)
        trace |= {"gru.x": x, "gru.h": h, "gru.gates": gates, "gru.h0": hidden, "gru.reset": reset}
        return h

    @torch.no_grad()
    def difference(self, p: Parameters, p_k: Parameters, trace: Trace, precision: str = "bf16") -> Tensor:
        """How the outputs change between two sets of parameters, as :mod:`kpg_fast.kernels.lookahead` carries it.

        Args:
            p: the parameters the trace was taken at.
            p_k: the others.
            trace: of a pass without ``present``.
            precision: of the products.

        Returns:
            outputs at ``p_k`` less outputs at ``p``, [G, rows of all steps, out_size].
        """
        d = self._embedding_difference(p, p_k, trace, precision)
        if self.recurrent:
            x, h = trace["gru.x"], trace["gru.h"]
            start = (trace["gru.gates"], trace["gru.h0"], trace["gru.reset"])
            d = gru_difference(x, d.view(x.shape), h, *start, _gru_weights(p), _gru_weights(p_k), precision)
        d = d.view(trace["mid.x"].shape)
        d = linear_difference(trace["mid.x"], d, *_layer(p, p_k, "mid"), trace["mid.sums"], precision)
        return linear_difference(trace["out.x"], d, *_layer(p, p_k, "out"), None, precision)

    def _embedding_difference(self, p: Parameters, p_k: Parameters, trace: Trace, precision: str) -> Tensor:
        sums = trace["in.sums"]
        if not self.num_ids:
            return linear_difference(trace["in.x"], None, *_layer(p, p_k, "in"), sums, precision)
        d = linear_difference(trace["in.x"], None, *_layer(p, p_k, "in"), None, precision)
        d = d.view(*sums.shape[:3], -1, self.hidden) + (p_k["in.id"] - p["in.id"])[:, None, None]
        return relu_difference(sums, d)

    def hidden_state(self, groups: int, rows: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
        """Zeros [G, R, H] to begin with."""
        return torch.zeros(groups, rows, self.hidden if self.recurrent else 0, dtype=dtype, device=device)


def _gru_weights(p: Parameters) -> Weights:
    return p["gru.w_x"], p["gru.b_x"], p["gru.w_h"], p["gru.b_n"]


def _layer(p: Parameters, p_k: Parameters, name: str) -> Weights:
    return p[f"{name}.w"], p_k[f"{name}.w"], p[f"{name}.b"], p_k[f"{name}.b"]


def _orthogonal(weight: Tensor, gain: float, generator: torch.Generator) -> None:
    """Orthogonal columns or rows, whichever are fewer; the distribution of ``jax.nn.initializers.orthogonal``."""
    weight.copy_(torch.nn.init.orthogonal_(torch.empty(weight.shape, dtype=weight.dtype), gain, generator=generator))


def _lecun_normal(weight: Tensor, generator: torch.Generator) -> None:
    """Truncated normal with variance 1 / fan_in, the default of ``flax.linen.Dense``."""
    std = sqrt(1.0 / weight.shape[0]) / 0.87962566103423978  # the standard deviation of a normal cut at +-2
    values = torch.empty(weight.shape, dtype=weight.dtype)
    weight.copy_(torch.nn.init.trunc_normal_(values, 0.0, std, -2 * std, 2 * std, generator=generator))
