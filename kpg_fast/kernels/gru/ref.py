"""Definition of the GRU over time in plain torch."""

import torch
from torch import Tensor


def gru(x: Tensor, h0: Tensor, reset: Tensor, w_x: Tensor, b_x: Tensor, w_h: Tensor, b_n: Tensor) -> Tensor:
    """Unroll the cell of :func:`kpg_fast.kernels.gru.gru` step by step; shapes and formula stand there."""
    xp = torch.matmul(x, w_x.unsqueeze(1)) + b_x[:, None, None]
    starts = reset.unbind(-2)
    h, hidden = h0, []
    # unbind, not an index a step: the gradient of an index is as large as all of xp
    for xp_t, start in zip(xp.unbind(1), starts, strict=True):
        h = torch.where(start.unsqueeze(-1), torch.zeros_like(h), h)
        xr, xz, xn = xp_t.chunk(3, -1)
        hr, hz, hn = torch.matmul(h, w_h).chunk(3, -1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * (hn + b_n.unsqueeze(-2)))
        h = (1 - z) * n + z * h
        hidden.append(h)
    return torch.stack(hidden, dim=1)
