import pytest
import torch

from kpg_fast.kernels.value_loss import gpu, ref
from tests.gpu.exactness import hold, move, twice
from tests.kernels.test_value_loss import run, values


def definition(value, old, returns, mask, clip_eps):
    loss, triple = run(ref.value_loss, (value, old, returns, mask), clip_eps)
    return loss, triple / 3


@pytest.mark.parametrize("clip_eps", [None, 0.2])
@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (1025,), (41, 13, 5)])
def test_loss_and_gradient_are_as_exact_as_torch(device, shape, clip_eps):
    inputs = (*values(*shape), clip_eps)
    inputs[3].view(-1)[0] = True
    hold(("loss", "dvalue"), twice(gpu.value_loss, *move(device, *inputs)), definition, inputs)


def test_unchanged_values_have_the_plain_gradient(device):
    value, _, returns, _ = move(device, *values(50))
    _, gradient = gpu.value_loss(value, value, returns, torch.ones(50, device=device), 0.2)
    torch.testing.assert_close(gradient, (value - returns) / 50)


def test_rows_of_weight_zero_are_not_read_and_nobody_may_count(device):
    value, old, returns, mask = values(3, 7)
    clean = twice(gpu.value_loss, *move(device, value, old, returns, mask, 0.2))
    spoilt = twice(gpu.value_loss, *move(device, value, old, returns.masked_fill(~mask, float("nan")), mask, 0.2))
    assert torch.equal(clean[0], spoilt[0])
    assert torch.equal(clean[1], spoilt[1])
    loss, gradient = gpu.value_loss(*move(device, value, old, returns, mask & False, 0.2))
    assert loss == 0
    assert (gradient == 0).all()


def test_the_clip_range_may_lie_on_the_device(device):
    inputs = move(device, *values(3, 7))
    plain, read = (gpu.value_loss(*inputs, eps) for eps in (0.2, torch.tensor([0.2], device=device)))
    assert all(torch.equal(a, b) for a, b in zip(plain, read, strict=True))
