"""That every op has an implementation for each device; a tensor's device alone chooses."""

import pytest
import torch

import kpg_fast.kernels.agent_embedding
import kpg_fast.kernels.gae
import kpg_fast.kernels.gru
import kpg_fast.kernels.k_level_surrogate
import kpg_fast.kernels.level_step
import kpg_fast.kernels.linear
import kpg_fast.kernels.lookahead
import kpg_fast.kernels.policy
import kpg_fast.kernels.value_loss  # noqa: F401

OPS = (
    "agent_embedding",
    "agent_embedding_backward",
    "gae",
    "value_loss",
    "k_level_surrogate",
    "others_log_ratio",
    "log_prob_entropy",
    "log_prob_entropy_backward",
    "sample",
    "level_step",
    "linear",
    "linear_backward",
    "gru",
    "gru_backward",
    "linear_difference",
    "gru_difference",
    "log_prob_difference",
)


@pytest.mark.parametrize("device", ["CPU", "CUDA"])
@pytest.mark.parametrize("op", OPS)
def test_op_is_registered(op, device):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"kpg_fast::{op}", device)
