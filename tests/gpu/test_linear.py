import pytest
import torch

from kpg_fast.kernels.linear import gpu, ref
from tests.gpu.exactness import hold, move, twice
from tests.kernels.oracle import value_and_gradients

# G, M, in, out: ones, primes, one past a tile of rows, columns and depth; rows enough for two parts of the weights' sum
SHAPES = [(1, 1, 1, 1), (3, 7, 5, 13), (1, 65, 17, 65), (1, 601, 3, 4)]
NAMES = ("y", "dx", "dw", "db")


def layer(sets, rows, ins, outs):
    generator = torch.Generator().manual_seed(rows * 101 + ins)
    shapes = ((sets, rows, ins), (sets, ins, outs), (sets, outs), (sets, rows, outs))
    x, w, b, dy = (torch.randn(shape, generator=generator) for shape in shapes)
    return x, w * ins**-0.5, b, dy


def all_of(x, w, b, dy, activation, precision):
    y, _ = gpu.forward(x, w, b, activation, precision, False)
    return y, *gpu.backward(dy, y, x, w, activation, precision, True, b is not None)


def definition(x, w, b, dy, activation, precision):
    inputs = (x, w) if b is None else (x, w, b)
    return value_and_gradients(lambda *a: ref.linear(*a[:2], *(a[2:] or (None,)), activation), inputs, dy)


@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_as_exact_as_torch(device, shape, activation):
    inputs = (*layer(*shape), activation, "fp32")
    hold(NAMES, twice(all_of, *move(device, *inputs)), definition, inputs)


def test_without_bias_and_gradient_of_the_input(device):
    x, w, _, dy = layer(3, 7, 5, 13)
    exact = definition(x, w, None, dy, "relu", "fp32")
    x, w, dy = move(device, x, w, dy)
    y, _ = gpu.forward(x, w, None, "relu", "fp32", False)
    dx, dw, db = gpu.backward(dy, y, x, w, "relu", "fp32", False, False)
    assert dx.numel() == db.numel() == 0
    torch.testing.assert_close(y.cpu(), exact[0])
    torch.testing.assert_close(dw.cpu(), exact[2])


def test_what_the_activation_was_applied_to(device):
    x, w, b, _ = move(device, *layer(3, 7, 5, 13))
    y, sums = gpu.forward(x, w, b, "relu", "fp32", True)
    assert torch.equal(sums, gpu.forward(x, w, b, "none", "fp32", False)[0])
    assert torch.equal(y, sums.relu())
    x[0, 1, 2] = float("nan")
    assert gpu.forward(x, w, b, "relu", "fp32", False)[0][0, 1].isnan().all()


def test_bf16_error_is_that_of_its_rounding(device):
    x, w, b, dy = layer(2, 67, 33, 20)
    rounded = [t.bfloat16().double() for t in (x, w)]
    ours = twice(all_of, *move(device, x, w, b, dy, "none", "bf16"))
    exact = definition(*rounded, b.double(), dy.bfloat16().double(), "none", "")
    for name, value, truth in zip(NAMES[:3], ours, exact, strict=False):
        assert (value - truth).abs().max() < 3e-6 * truth.abs().max(), name
    torch.testing.assert_close(ours[3], dy.sum(1))
    assert (ours[0] - ref.linear(x, w, b, "none")).abs().max() > 1e-4


def test_views_of_flat_parameters_and_shared_inputs(device):
    x, w, b, dy = move(device, *layer(3, 7, 5, 13))
    flat = torch.cat([torch.zeros(3, 1, device=device), w.flatten(1), b], 1)
    shared = x[:1].expand(3, -1, -1)
    expected = all_of(shared.contiguous(), w, b, dy, "relu", "fp32")
    views = flat[:, 1:66].view(3, 5, 13), flat[:, 66:]
    assert all(torch.equal(p, q) for p, q in zip(expected, all_of(shared, *views, dy, "relu", "fp32"), strict=True))
