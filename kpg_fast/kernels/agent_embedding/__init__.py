"""First layer of a network that sees what its agents share and which of them it speaks for.

    y[g, m, n] = max(x[g, m] + id[g, n], 0)

x [G, M, H] is the product of the shared input, computed once for all agents; id [G, N, H] are the rows of the weights
that a one-hot agent id would select; y [G, M, N, H].
"""

from typing import Any

import torch
from torch import Tensor

from kpg_fast.kernels.agent_embedding import cpu, ref
from kpg_fast.kernels.layout import check_dtypes, check_shape
from kpg_fast.kernels.registration import define_op


def _shape(x: Tensor, id: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:2], *id.shape[1:])


_forward = define_op("agent_embedding", cpu.forward, _shape)


def _backward_shapes(dy: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    sets, rows, agents, hidden = y.shape
    return y.new_empty(sets, rows, hidden), y.new_empty(sets, agents, hidden)


_backward = define_op("agent_embedding_backward", cpu.backward, _backward_shapes)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _gradient(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
    (y,) = ctx.saved_tensors
    dx, did = _backward(dy, y)
    return dx, did


_forward.register_autograd(_gradient, setup_context=_setup_context)


def agent_embedding(x: Tensor, id: Tensor) -> Tensor:
    """Return ``max(x + id, 0)`` [G, M, N, H]; differentiable in both.

    Args:
        x: what the agents share [G, M, H].
        id: what tells them apart [G, N, H].

    Float64 tensors take the definition in ``ref.py`` (for tests).

    Raises:
        UsageError: shapes or types that do not fit.
    """
    check_shape("id", id, (x.shape[0], id.shape[1], x.shape[-1]))
    if check_dtypes("agent_embedding", x, id) == torch.float64:
        return ref.agent_embedding(x, id)
    y: Tensor = _forward(x, id)
    return y
