import pytest
import torch

from kpg_fast.errors import UsageError
from kpg_fast.kernels.value_loss import ref, value_loss
from tests.kernels.oracle import as_exact_as_torch, doubled, threads


def values(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    value, old, returns = torch.randn(3, *shape, generator=generator)
    return value, old, returns, torch.rand(shape, generator=generator) < 0.7


def run(f, inputs, clip_eps):
    value = inputs[0].clone().requires_grad_()
    loss = f(value, *inputs[1:], clip_eps)
    return loss.detach(), torch.autograd.grad(3 * loss, value)[0]


@pytest.mark.parametrize("clip_eps", [None, 0.2, 1.0])
@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (4097,), (128, 33, 5)])
def test_loss_and_gradient_are_as_exact_as_torch(shape, clip_eps):
    inputs = values(*shape)
    inputs[3].view(-1)[0] = True
    ours, single = run(value_loss, inputs, clip_eps), run(ref.value_loss, inputs, clip_eps)
    exact = run(ref.value_loss, doubled(*inputs), clip_eps)
    for name, *results in zip(("loss", "dvalue"), ours, single, exact, strict=True):
        as_exact_as_torch(*results, name)


def test_unchanged_values_have_the_plain_gradient():
    """At value = value_old both squares are equal: half of each, which is the whole."""
    value, _, returns, _ = values(50)
    _, gradient = run(value_loss, (value, value, returns, torch.ones(50)), 0.2)
    torch.testing.assert_close(gradient, 3 * (value - returns) / 50)


def test_weights_and_rows_of_weight_zero():
    value, old, returns, _ = values(6)
    weight = torch.tensor([0.0, 1.0, 2.0, 0.0, 0.5, 1.0])
    clean = run(value_loss, (value, old, returns, weight), 0.2)
    exact = run(ref.value_loss, doubled(value, old, returns, weight), 0.2)
    torch.testing.assert_close(clean[0].double(), exact[0])
    returns[weight == 0] = float("nan")
    spoilt = run(value_loss, (value, old, returns, weight), 0.2)
    assert torch.equal(clean[0], spoilt[0])
    assert torch.equal(clean[1], spoilt[1])


def test_nobody_counts():
    value, old, returns, mask = values(5)
    loss, gradient = run(value_loss, (value, old, returns, mask & False), 0.2)
    assert loss == 0
    assert (gradient == 0).all()


def test_a_strided_value_and_the_number_of_threads():
    value, old, returns, mask = values(300, 50)
    wide = torch.stack([value, value * 0], -1)
    expected = run(value_loss, (value, old, returns, mask), 0.2)
    with threads(2):
        got = run(value_loss, (wide[..., 0], old, returns, mask), 0.2)
    assert torch.equal(expected[0], got[0])
    assert torch.equal(expected[1], got[1])


def test_what_does_not_fit_is_refused():
    value, old, returns, mask = values(5)
    with pytest.raises(UsageError, match="mask must be"):
        value_loss(value, old, returns, mask[:4], 0.2)
