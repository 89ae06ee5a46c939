"""Perceptrons and the mixer's networks on the GPU: made of the linear layer's kernels, in the caller's memory."""

import pytest
import torch

from kpg_fast.kernels.hypernetwork import gpu as hypernetwork
from kpg_fast.kernels.hypernetwork import ref as hypernetwork_ref
from kpg_fast.kernels.mlp import gpu, ref
from tests.gpu.exactness import move
from tests.kernels import test_hypernetwork, test_mlp
from tests.kernels.oracle import as_exact_as_torch

# G, R, in, hidden, out: ones, primes, one past a block, more rows than one part of the weights' sum
SHAPES = [(1, 1, 1, 1, 1), (2, 7, 5, 13, 3), (3, 65, 17, 49, 17), (2, 1030, 5, 17, 2)]


def on(device, p, *rest):
    return {name: value.to(device) for name, value in p.items()}, *move(device, *rest)


def hold(ours, single, exact):
    for name, value in ours.items():
        as_exact_as_torch(value.cpu(), single[name], exact[name], name)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_perceptron_is_as_exact_as_torch(device, shape, shared):
    inputs = test_mlp.case(shape, shared)
    ours, again = (test_mlp.run(gpu, *on(device, *inputs)) for _ in range(2))
    assert all(torch.equal(ours[name], again[name]) for name in ours)
    hold(ours, test_mlp.run(ref, *inputs), test_mlp.run(ref, *test_mlp.doubled(*inputs)))


@pytest.mark.parametrize(("precision", "exact"), [("bf16", ("h1",)), ("tf32", ())])
def test_products_are_rounded_where_they_are_said_to_be(device, precision, exact):
    inputs = on(device, *test_mlp.case((2, 70, 9, 50, 2)))
    ours, single = test_mlp.run(gpu, *inputs, precision), test_mlp.run(gpu, *inputs)
    for name in ("h1", "h2", "y", "d1", "mid.w"):
        error = float((ours[name] - single[name]).norm() / single[name].norm())
        if name in exact:
            assert error == 0, name
        elif precision == "bf16" or device.type == "cuda":  # interpreted, tf32 is float32
            assert 1e-5 < error < 0.1, (name, error)


def test_parameters_may_lie_apart_and_inputs_in_wider_rows(device):
    p, x, dy = on(device, *test_mlp.case((2, 9, 5, 16, 3)))
    flat = torch.zeros(2, 1000, device=device)
    apart, at = {}, 3
    for name, value in p.items():
        apart[name] = flat[:, at : at + value[0].numel()].view(value.shape)
        apart[name].copy_(value)
        at += value[0].numel()
    wide = torch.randn(2, 9, 12, device=device)
    wide[..., 4:9] = x
    ours, theirs = test_mlp.run(gpu, apart, wide[..., 4:9], dy), test_mlp.run(gpu, p, x, dy)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    gpu.gradient(apart, x, *(ours[name] for name in ("h1", "h2", "d1", "d2")), dy, "fp32")
    assert all(torch.equal(apart[name], theirs[name]) for name in apart)


@pytest.mark.parametrize("shape", [*test_hypernetwork.SHAPES[:3], (530, 3, 2, 5, 7)])
def test_the_mixers_networks_are_as_exact_as_torch(device, shape):
    p, state, grads = test_hypernetwork.case(*shape)
    doubled = {name: value.double() for name, value in p.items()}, state.double(), [grad.double() for grad in grads]
    p_d, state_d, *grads_d = on(device, p, state, *grads)
    ours = test_hypernetwork.run(hypernetwork, p_d, state_d, grads_d)
    hold(
        ours,
        test_hypernetwork.run(hypernetwork_ref, p, state, grads),
        test_hypernetwork.run(hypernetwork_ref, *doubled),
    )
