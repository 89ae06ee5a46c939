import pytest
import torch

from kpg_fast.kernels.gae import gpu, ref
from tests.gpu.exactness import hold, move, twice
from tests.kernels.test_gae import OPTIONS, rollout

# one, primes, one past a block of columns, one agent
SHAPES = [(1, 1, 1), (5, 3, 2), (17, 13, 5), (9, 65, 1)]


@pytest.mark.parametrize("ends", [0.0, 0.1, 1.0], ids=["no-ends", "ends", "every-step"])
@pytest.mark.parametrize("shape", SHAPES)
def test_as_exact_as_torch(device, shape, ends):
    inputs = rollout(*shape, ends)
    ours = twice(gpu.gae, *move(device, *inputs), **OPTIONS)
    hold(("advantage", "returns"), ours, ref.gae, inputs, **OPTIONS)


def test_without_last_values_and_validity(device):
    inputs = (*rollout(6, 3, 2, 0.5)[:5], None, None)
    hold(("advantage", "returns"), twice(gpu.gae, *move(device, *inputs), **OPTIONS), ref.gae, inputs, **OPTIONS)


def test_what_is_not_read_may_be_anything(device):
    reward, value, bootstrap, ends, cuts, last, valid = rollout(8, 7, 2, 0.3)
    clean = gpu.gae(*move(device, reward, value, bootstrap, ends, cuts, last, valid), **OPTIONS)
    last = torch.where(cuts[..., None], last, float("nan"))
    reward = torch.where(valid, reward, float("nan"))
    spoilt = gpu.gae(*move(device, reward, value, bootstrap, ends, cuts, last, valid), **OPTIONS)
    assert torch.equal(clean[0], spoilt[0])
