import pytest
import torch

from kpg_fast import _C
from kpg_fast.errors import UsageError
from kpg_fast.kernels.linear import linear, ref
from tests.kernels.oracle import as_exact_as_torch, doubled, kernels, threads, value_and_gradients

# G, M, in, out: ones, primes, one past a tile, a panel, a block of rows and of depth; several parts of rows
SHAPES = [(1, 1, 1, 1), (2, 7, 13, 5), (3, 65, 127, 10), (1, 129, 257, 49), (1, 1030, 33, 17), (2, 9, 48, 400)]
NAMES = ["y", "dx", "dw", "db"]


def layer(sets, rows, size, out):
    generator = torch.Generator().manual_seed(rows * 1009 + size)
    shapes = (sets, rows, size), (sets, size, out), (sets, out), (sets, rows, out)
    x, w, b, dy = (torch.randn(shape, generator=generator) for shape in shapes)
    return (x, w / size**0.5, b), dy


def away_from_the_kink(inputs, activation):
    """The same layer with no sum so near 0 that rounding decides whether the ReLU lets it through."""
    x, w, b = inputs
    if activation == "relu":
        near = ref.linear(*doubled(x, w, b), "none").abs().amin(1) < 1e-5
        b = b + near * 1e-3
    return x, w, b


@pytest.mark.parametrize("isa", _C.kernel_names())
@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_as_exact_as_torch(shape, activation, isa):
    inputs, dy = layer(*shape)
    inputs = away_from_the_kink(inputs, activation)
    with kernels(isa):
        ours = value_and_gradients(lambda *a: linear(*a, activation), inputs, dy)
    single = value_and_gradients(lambda *a: ref.linear(*a, activation), inputs, dy)
    exact = value_and_gradients(lambda *a: ref.linear(*a, activation), doubled(*inputs), dy)
    for name, *results in zip(NAMES, ours, single, exact, strict=True):
        as_exact_as_torch(*results, name)


@pytest.mark.parametrize("isa", _C.kernel_names())
@pytest.mark.parametrize("shape", SHAPES)
def test_bf16_rounds_the_factors_and_nothing_else(shape, isa):
    """Factors that bfloat16 holds exactly give float32's result."""
    inputs, dy = layer(*shape)
    x, w, dy = (t.bfloat16().float() for t in (*inputs[:2], dy))
    with kernels(isa):
        ours = value_and_gradients(lambda *a: linear(*a, precision="bf16"), (x, w, inputs[2]), dy)
    single = value_and_gradients(lambda *a: ref.linear(*a, "none"), (x, w, inputs[2]), dy)
    exact = value_and_gradients(lambda *a: ref.linear(*a, "none"), doubled(x, w, inputs[2]), dy)
    for name, *results in zip(NAMES, ours, single, exact, strict=True):
        as_exact_as_torch(*results, name)


@pytest.mark.parametrize("isa", _C.kernel_names())
def test_bf16_error_is_that_of_its_rounding(isa):
    inputs, dy = layer(1, 300, 128, 96)
    with kernels(isa):
        ours = value_and_gradients(lambda *a: linear(*a, precision="bf16"), inputs, dy)
    rounded = [t.bfloat16().double() for t in (*inputs[:2], dy)]
    exact = value_and_gradients(lambda *a: ref.linear(*a, "none"), (*rounded[:2], inputs[2].double()), rounded[2])
    for name, value, truth in zip(NAMES[:3], ours, exact, strict=False):
        assert (value - truth).abs().max() < 2e-6 * truth.abs().max() * 128**0.5, name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("live", [0, 1, 77, 555])
def test_rows_without_a_gradient_add_nothing(live, precision):
    inputs, dy = layer(2, 600, 33, 17)
    activation = "none" if precision == "bf16" else "relu"  # whose kink lies elsewhere in bf16
    inputs = away_from_the_kink(inputs, activation)
    dy[:, torch.randperm(600, generator=torch.Generator().manual_seed(live))[live:]] = 0
    ours = value_and_gradients(lambda *a: linear(*a, activation, precision), inputs, dy)
    exact = value_and_gradients(lambda *a: ref.linear(*a, activation), doubled(*inputs), dy)
    for name, value, truth in zip(NAMES, ours, exact, strict=True):
        assert (value - truth).norm() <= (0.01 if precision == "bf16" else 1e-6) * truth.norm(), name


def test_scratch_memory_of_an_earlier_call_does_not_leak():
    inputs, dy = layer(2, 70, 13, 5)
    clean = value_and_gradients(lambda *a: linear(*a, "relu"), inputs, dy)
    nan, dnan = (torch.full((2, 3000, 40), float("nan")) for _ in range(2))
    value_and_gradients(lambda *a: linear(*a, "relu"), (nan, nan[:, :40], nan[:, 0]), dnan)
    again = value_and_gradients(lambda *a: linear(*a, "relu"), inputs, dy)
    assert all(torch.equal(a, b) for a, b in zip(clean, again, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_results_do_not_depend_on_the_number_of_threads(precision):
    inputs, dy = layer(2, 1500, 60, 70)
    results = []
    for count in (1, 2, 3, 2):
        with threads(count):
            results.append(value_and_gradients(lambda *a: linear(*a, "relu", precision), inputs, dy))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_strided_rows_expanded_sets_and_views_of_flat_parameters():
    flat, wide = torch.randn(3, 500, requires_grad=True), torch.randn(1, 40, 50, requires_grad=True)
    w, b, x = flat[:, :200].view(3, 20, 10), flat[:, 200:210], wide[..., 7:27].expand(3, -1, -1)
    dy = torch.randn(3, 40, 10)
    exact = value_and_gradients(linear, [t.detach().contiguous() for t in (x, w, b)], dy)
    y = linear(x, w, b)
    dwide, dflat = torch.autograd.grad(y, (wide, flat), dy)
    torch.testing.assert_close(y, exact[0], rtol=0, atol=0)
    torch.testing.assert_close(dwide[..., 7:27], exact[1].sum(0, keepdim=True))
    torch.testing.assert_close(dflat[:, :200].view(3, 20, 10), exact[2], rtol=0, atol=0)


def test_no_bias_and_no_gradient_of_the_input():
    (x, w, _), dy = layer(2, 9, 5, 4)
    w.requires_grad_()
    y = linear(x, w)
    (dw,) = torch.autograd.grad(y, w, dy)
    torch.testing.assert_close(y, x @ w)
    torch.testing.assert_close(dw, x.mT @ dy)


def test_a_nan_passes_the_relu():
    x = torch.tensor([[[float("nan"), 1.0]]])
    assert linear(x, torch.ones(1, 2, 3), activation="relu").isnan().all()


def test_compiles_without_a_break(monkeypatch):
    monkeypatch.undo()
    inputs, _ = layer(2, 9, 5, 4)
    compiled = torch.compile(lambda *a: linear(*a, "relu"), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(*inputs), linear(*inputs, "relu"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "gelu"}, "activation must be"),
        ({"precision": "fp8"}, "precision must be"),
        ({"b": torch.zeros(2, 5)}, r"b must be \[2, 4\]"),
        ({"x": torch.zeros(2, 9, 6)}, "x must be"),
        ({"x": torch.zeros(9, 5)}, "x must be"),
        ({"w": torch.zeros(2, 5, 4, dtype=torch.float64)}, "float32 or float64"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    (x, w, b), _ = layer(2, 9, 5, 4)
    with pytest.raises(UsageError, match=message):
        linear(**({"x": x, "w": w, "b": b} | change))
