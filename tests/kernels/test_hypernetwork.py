import pytest
import torch

from kpg_fast.kernels import hypernetwork
from kpg_fast.kernels.hypernetwork import ref
from tests.kernels.oracle import as_exact_as_torch

SHAPES = [(1, 1, 1, 1, 1), (7, 17, 2, 5, 3), (100, 17, 2, 64, 64), (131, 105, 6, 32, 64)]  # R, S, N, M, Y


def case(rows, state, agents, hidden, inner):
    generator = torch.Generator().manual_seed(rows)
    sizes = {"state": (state, 2 * inner + 2 * hidden), "w1": (inner, agents * hidden), "w2": (inner, hidden)}
    sizes["v"] = (hidden, 1)
    p = {}
    for name, (i, o) in sizes.items():
        p[f"{name}.w"] = torch.randn(1, i, o, generator=generator) / i**0.5
        p[f"{name}.b"] = torch.randn(1, o, generator=generator)
    shapes = (rows, agents * hidden), (rows, hidden), (rows, hidden), (rows, 1)
    return p, torch.randn(rows, state, generator=generator), [torch.randn(s, generator=generator) for s in shapes]


def run(implementation, p, state, grads):
    """Everything there is to compute, in memory full of nan."""
    first = torch.full((1, len(state), p["state.b"].shape[1]), torch.nan, dtype=state.dtype)
    weights = [torch.full_like(grad, torch.nan) for grad in grads]
    implementation.forward(p, state, first, *weights)
    scratch = torch.full((2, *first.shape[1:]), torch.nan, dtype=state.dtype)
    into = {name: torch.full_like(value, torch.nan) for name, value in p.items()}
    implementation.backward(p, state, first, *grads, scratch, into)
    return dict(zip(("w1", "b1", "w2", "v"), weights, strict=True)) | {f"d {name}": g for name, g in into.items()}


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_as_exact_as_torch(shape):
    p, state, grads = case(*shape)
    doubled = {name: value.double() for name, value in p.items()}, state.double(), [grad.double() for grad in grads]
    ours, single, exact = run(hypernetwork, p, state, grads), run(ref, p, state, grads), run(ref, *doubled)
    for name, value in ours.items():
        as_exact_as_torch(value, single[name], exact[name], name)


def test_the_definition_is_what_autograd_finds():
    p, state, grads = case(7, 5, 2, 4, 3)
    p = {name: value.double().requires_grad_() for name, value in p.items()}
    state, grads = state.double(), [grad.double() for grad in grads]
    y, m = 3, 4
    first = state @ p["state.w"][0] + p["state.b"][0]
    parts = first[:, :y].relu(), first[:, y : 2 * y].relu(), first[:, 2 * y : 2 * y + m].relu()
    w1, w2, v = (x @ p[f"{n}.w"][0] + p[f"{n}.b"][0] for n, x in zip(("w1", "w2", "v"), parts, strict=True))
    expected = torch.autograd.grad([w1, first[:, -m:], w2, v], list(p.values()), grads)
    ours = run(ref, {name: value.detach() for name, value in p.items()}, state, grads)
    for name, grad in zip(p, expected, strict=True):
        torch.testing.assert_close(ours[f"d {name}"], grad)


def test_shapes_that_do_not_fit_are_an_error():
    p, state, grads = case(7, 5, 2, 4, 3)
    with pytest.raises(ValueError, match=r"w1.w must be \[1, 3, 8\]"):
        run(hypernetwork, p | {"w1.w": p["w1.w"][:, :-1]}, state, grads)
