"""Definition of the GRU over time in plain torch."""

import torch
from torch import Tensor


def gru(x: Tensor, h0: Tensor, reset: Tensor, w_x: Tensor, b_x: Tensor, w_h: Tensor, b_n: Tensor) -> Tensor:
    """Unroll the cell of :func:`kpg_fast.kernels.gru.gru` step by step; shapes and formula stand there."""
    steps, size = x.shape[1], h0.shape[-1]
    xp = torch.matmul(x, w_x.unsqueeze(1)) + b_x[:, None, None]
    h, hidden = h0, []
    for t in range(steps):
        h = torch.where(reset[..., t, :].unsqueeze(-1), torch.zeros_like(h), h)
        hp = torch.matmul(h, w_h)
        r = torch.sigmoid(xp[:, t, :, :size] + hp[..., :size])
        z = torch.sigmoid(xp[:, t, :, size : 2 * size] + hp[..., size : 2 * size])
        n = torch.tanh(xp[:, t, :, 2 * size :] + r * (hp[..., 2 * size :] + b_n.unsqueeze(-2)))
        h = (1 - z) * n + z * h
        hidden.append(h)
    return torch.stack(hidden, dim=1)
