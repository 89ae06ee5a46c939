import pytest
import torch

from kpg_fast import _C
from kpg_fast.errors import UsageError
from kpg_fast.kernels import mlp
from kpg_fast.kernels.mlp import ref
from tests.kernels.oracle import as_exact_as_torch, kernels, threads

# G, R, in, hidden, out: ones, primes, one past a tile, a panel, a block of rows and a chunk of samples
SHAPES = [(1, 1, 1, 1, 1), (2, 7, 5, 13, 3), (3, 65, 17, 49, 17), (1, 130, 12, 400, 1), (2, 517, 33, 48, 2)]


def case(shape, shared=False, seed=0):
    """Parameters, inputs, and the gradient of the outputs."""
    sets, rows, size, hidden, out = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    p = {"in.w": normal(sets, size, hidden) / size**0.5, "in.b": normal(sets, hidden)}
    p |= {"mid.w": normal(sets, hidden, hidden) / hidden**0.5, "mid.b": normal(sets, hidden)}
    p |= {"out.w": normal(sets, hidden, out) / hidden**0.5, "out.b": normal(sets, out)}
    return p, normal(1 if shared else sets, rows, size), normal(sets, rows, out)


def run(implementation, p, x, dy, precision="fp32"):
    """Everything there is to compute, in memory full of nan."""
    hidden = torch.full((*dy.shape[:2], p["in.w"].shape[2]), torch.nan, dtype=dy.dtype)
    h1, h2, d1, d2 = (hidden.clone() for _ in range(4))
    y, into = torch.full_like(dy, torch.nan), {name: torch.full_like(value, torch.nan) for name, value in p.items()}
    implementation.forward(p, x, h1, h2, y, precision)
    implementation.deltas(p, x, h1, h2, dy, d1, d2, precision)
    implementation.gradient(into, x, h1, h2, d1, d2, dy, precision)
    return {"h1": h1, "h2": h2, "y": y, "d1": d1, "d2": d2} | into


def doubled(p, *rest):
    return ({name: value.double() for name, value in p.items()}, *(value.double() for value in rest))


@pytest.mark.parametrize("isa", _C.kernel_names())
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_as_exact_as_torch(shape, shared, isa):
    inputs = case(shape, shared)
    with kernels(isa):
        ours = run(mlp, *inputs)
    single, exact = run(ref, *inputs), run(ref, *doubled(*inputs))
    for name, value in ours.items():
        as_exact_as_torch(value, single[name], exact[name], name)


@pytest.mark.parametrize("isa", _C.kernel_names())
def test_bf16_rounds_the_factors_of_the_middle_layer_alone(isa):
    p, x, dy = case((2, 70, 9, 50, 2))
    with kernels(isa):
        ours, single = run(mlp, p, x, dy, "bf16"), run(mlp, p, x, dy)
    exact = run(ref, *doubled(p, x, dy))
    assert torch.equal(ours["h1"], single["h1"])
    for name in ("h2", "y", "d1", "mid.w"):
        error = float((ours[name] - exact[name]).norm() / exact[name].norm())
        assert 1e-4 < error < 0.1, (name, error)


def test_results_do_not_depend_on_threads():
    inputs = case((3, 517, 12, 65, 3))
    with threads(1):
        one = run(mlp, *inputs)
    with threads(2):
        two = run(mlp, *inputs)
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


def test_rows_may_be_strided_and_sets_lie_apart():
    """Inputs that are columns of a wider array, parameters that are views of flat [G, P]."""
    p, x, dy = case((2, 9, 5, 16, 3))
    flat = torch.zeros(2, 1000)
    apart, at = {}, 3
    for name, value in p.items():
        size = value[0].numel()
        apart[name] = flat[:, at : at + size].view(value.shape)
        apart[name].copy_(value)
        at += size
    wide = torch.randn(2, 9, 12)
    wide[..., 4:9] = x
    ours, theirs = run(mlp, apart, wide[..., 4:9], dy), run(mlp, p, x, dy)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_does_not_fit_is_an_error():
    p, x, dy = case((2, 9, 5, 16, 3))
    with pytest.raises(ValueError, match=r"mid.w must be \[2, 16, 16\]"):
        run(mlp, p | {"mid.w": p["mid.w"][:, :-1]}, x, dy)
    with pytest.raises(UsageError, match="tf32 is one of GPUs"):
        run(mlp, p, x, dy, "tf32")
    with pytest.raises(UsageError, match="precision must be one of"):
        run(mlp, p, x, dy, "fp8")
    with pytest.raises(UsageError, match="float32 alone"):
        run(mlp, *doubled(p, x, dy), "bf16")
