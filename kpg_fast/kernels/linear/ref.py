"""Definition of the batched linear layer in plain torch."""

import torch
from torch import Tensor


def linear(x: Tensor, w: Tensor, b: Tensor | None, activation: str) -> Tensor:
    """Return ``act(x @ w + b)``; see :func:`kpg_fast.kernels.linear.linear` for the shapes."""
    y = torch.matmul(x, w)
    if b is not None:
        y = y + b.unsqueeze(-2)
    return torch.relu(y) if activation == "relu" else y
