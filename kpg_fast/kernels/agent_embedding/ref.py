"""Definition of the agent embedding in plain torch."""

import torch
from torch import Tensor


def agent_embedding(x: Tensor, id: Tensor) -> Tensor:
    """See :func:`kpg_fast.kernels.agent_embedding.agent_embedding`."""
    return torch.relu(x.unsqueeze(2) + id.unsqueeze(1))
