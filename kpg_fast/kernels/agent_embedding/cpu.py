"""The agent embedding on the CPU, in csrc/agent_embedding.cpp."""

from torch import Tensor

from kpg_fast import _C
from kpg_fast.kernels.layout import dense, empty, view


def forward(x: Tensor, id: Tensor) -> Tensor:
    """Return y [G, M, N, H]."""
    y = empty(*x.shape[:2], *id.shape[1:])
    _C.agent_embedding(view(x.contiguous()), view(dense(id, 2)), view(y))
    return y


def backward(dy: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return (dx, did)."""
    sets, rows, agents, hidden = y.shape
    dx, did = empty(sets, rows, hidden), empty(sets, agents, hidden)
    _C.agent_embedding_backward(view(dy.contiguous()), view(y), view(dx), view(did))
    return dx, did
