from math import prod

import pytest
import torch

from kpg_fast import _C
from kpg_fast.errors import UsageError
from kpg_fast.kernels.gru import gru, ref
from kpg_fast.kernels.layout import gradients_in
from tests.kernels.oracle import as_exact_as_torch, doubled, kernels, threads, value_and_gradients

# G, T, R, I, H: ones, primes, one past a register, a tile, a block of rows; several groups of rows; deep products
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 3, 5, 7, 13),
    (1, 40, 2, 3, 17),
    (1, 2, 97, 33, 65),
    (2, 3, 49, 20, 8),
    (1, 2, 9, 300, 260),
]
NAMES = ["h", "dx", "dh0", "dw_x", "db_x", "dw_h", "db_n"]


def cell(sets, steps, rows, size, hidden, reset=0.2, draw=0):
    """Inputs in the order of gru(), and a gradient of its result."""
    generator = torch.Generator().manual_seed(steps * 1009 + rows + draw * 1_000_003)

    def normal(*shape, scale=1.0):
        return torch.randn(shape, generator=generator) * scale

    inputs = (
        normal(sets, steps, rows, size),
        normal(sets, rows, hidden, scale=0.5),
        torch.rand(sets, steps, rows, generator=generator) < reset,
        normal(sets, size, 3 * hidden, scale=size**-0.5),
        normal(sets, 3 * hidden, scale=0.1),
        normal(sets, hidden, 3 * hidden, scale=hidden**-0.5),
        normal(sets, hidden, scale=0.1),
    )
    return inputs, normal(sets, steps, rows, hidden)


def hold_to_float64(cells, isa):
    """The largest errors over several (inputs, dh)."""
    with kernels(isa):
        ours = [value_and_gradients(gru, inputs, dh) for inputs, dh in cells]
    single = [value_and_gradients(ref.gru, inputs, dh) for inputs, dh in cells]
    exact = [value_and_gradients(ref.gru, doubled(*inputs), dh) for inputs, dh in cells]
    stacked = ([torch.stack(results) for results in zip(*draws, strict=True)] for draws in (ours, single, exact))
    for name, *results in zip(NAMES, *stacked, strict=True):
        as_exact_as_torch(*results, name)


@pytest.mark.parametrize("isa", _C.kernel_names())
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_as_exact_as_torch(shape, isa):
    draws = 16 if prod(shape) == 1 else 1  # torch's error in a single number is a matter of luck
    hold_to_float64([cell(*shape, draw=draw) for draw in range(draws)], isa)


@pytest.mark.parametrize("reset", [0.0, 1.0], ids=["never", "every-step"])
def test_resets_at_every_step_or_never(reset):
    hold_to_float64([cell(2, 5, 6, 4, 10, reset=reset)], _C.chosen_kernels())


def test_a_reset_row_forgets_and_passes_no_gradient_back():
    (x, h0, _, *weights), dh = cell(1, 4, 3, 5, 6)
    reset = torch.zeros(4, 3, dtype=torch.bool)
    reset[2, 1] = True
    dh[:, :2] = 0
    _, dx, dh0, *_ = value_and_gradients(gru, (x, h0, reset, *weights), dh)
    assert (dh0[0, 1] == 0).all()
    assert (dx[0, :2, 1] == 0).all()
    assert (dh0[0, 0] != 0).any()
    assert (dx[0, 0, 0] != 0).any()


def test_saturated_gates_and_their_gradients():
    inputs, dh = cell(1, 3, 7, 4, 9)
    hold_to_float64([((inputs[0] * 60, *inputs[1:]), dh)], _C.chosen_kernels())


def test_small_states_keep_their_digits():
    """tanh near 0 is relative to its argument: a result of 1e-6 is right to 1e-12."""
    inputs, _ = cell(1, 1, 4, 3, 5)
    x, h0, reset, *weights = (t * 1e-6 if t.is_floating_point() else t for t in inputs)
    exact = ref.gru(*doubled(x, h0, reset, *weights))
    assert (gru(x, h0, reset, *weights) - exact).abs().max() < 3e-7 * exact.abs().max()


@pytest.mark.parametrize("isa", _C.kernel_names())
def test_bf16_error_is_that_of_its_rounding(isa):
    """One step from zero: the same numbers as the definition with rounded factors."""
    (x, h0, reset, w_x, *rest), _ = cell(1, 1, 50, 37, 20)
    rounded = [t.bfloat16().double() for t in (x, w_x)]
    exact = ref.gru(rounded[0], h0.double() * 0, reset, rounded[1], *(t.double() for t in rest))
    with kernels(isa):
        ours = gru(x, h0 * 0, reset, w_x, *rest, precision="bf16")
    assert (ours - exact).abs().max() < 2e-6
    assert (ours - gru(x, h0 * 0, reset, w_x, *rest)).abs().max() > 1e-4


@pytest.mark.parametrize("isa", _C.kernel_names())
def test_bf16_gradients_lie_within_its_rounding(isa):
    inputs, dh = cell(1, 6, 60, 37, 20)
    with kernels(isa):
        ours = value_and_gradients(lambda *a: gru(*a, precision="bf16"), inputs, dh)
    exact = value_and_gradients(ref.gru, doubled(*inputs), dh)
    for name, value, truth in zip(NAMES, ours, exact, strict=True):
        assert (value - truth).norm() < 0.01 * truth.norm(), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_results_do_not_depend_on_the_number_of_threads(precision):
    inputs, dh = cell(2, 9, 53, 20, 30)
    results = []
    for count in (1, 2, 3, 2):
        with threads(count):
            results.append(value_and_gradients(lambda *a: gru(*a, precision=precision), inputs, dh))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_scratch_memory_of_an_earlier_call_does_not_leak():
    inputs, dh = cell(1, 3, 11, 5, 6)
    clean = value_and_gradients(gru, inputs, dh)
    spoilt, dspoilt = cell(2, 3, 100, 40, 50)
    spoilt = [t * float("nan") if t.is_floating_point() else t for t in spoilt]
    value_and_gradients(gru, tuple(spoilt), dspoilt)
    again = value_and_gradients(gru, inputs, dh)
    assert all(torch.equal(a, b) for a, b in zip(clean, again, strict=True))


def test_one_reset_for_all_sets_and_views_of_flat_parameters():
    (x, h0, reset, *weights), dh = cell(3, 4, 5, 6, 7)
    flat = torch.cat([w.flatten(1) for w in weights], 1).requires_grad_()
    views = [v.view_as(w) for v, w in zip(flat.split([w[0].numel() for w in weights], 1), weights, strict=True)]
    expected = value_and_gradients(gru, (x, h0, reset[:1].expand(3, -1, -1), *weights), dh)
    h = gru(x, h0, reset[0], *views)
    (dflat,) = torch.autograd.grad(h, flat, dh)
    assert torch.equal(h, expected[0])
    assert torch.equal(dflat, torch.cat([d.flatten(1) for d in expected[3:]], 1))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("shape", [(1, 9, 97, 7, 13), (2, 5, 60, 16, 20)])
def test_rows_and_steps_without_a_gradient_add_nothing(shape, precision):
    """Leaving out what has no gradient gives what working through the zeros would."""
    inputs, dh = cell(*shape, reset=0.0)
    dh[:, :, ::3] = 0
    dh[:, 4:, 1::2] = 0
    ours = value_and_gradients(lambda *a: gru(*a, precision=precision), inputs, dh)
    exact = value_and_gradients(ref.gru, doubled(*inputs), dh)
    single = value_and_gradients(ref.gru, inputs, dh)
    for name, value, torchs, truth in zip(NAMES, ours, single, exact, strict=True):
        if precision == "fp32":
            as_exact_as_torch(value, torchs, truth, name)
        assert (value - truth).norm() < 0.01 * truth.norm(), name
    untouched = dh.flatten(0, 1).abs().amax((0, 2)) == 0
    assert (ours[1][:, :, untouched] == 0).all()
    assert (ours[2][:, untouched] == 0).all()


def test_no_gradient_at_all():
    inputs, dh = cell(1, 4, 30, 5, 6)
    assert all((gradient == 0).all() for gradient in value_and_gradients(gru, inputs, 0 * dh)[1:])


@pytest.mark.parametrize("window", [1, 3, 4, 100])
def test_a_window_ends_where_its_first_step_begins(window):
    """As if the hidden state that a window begins with were data."""
    inputs, dh = cell(2, 8, 30, 5, 6)
    with gradients_in(None, window):
        ours = value_and_gradients(gru, inputs, dh)

    def cut(x, h0, reset, *weights):
        parts, h = [], h0
        for start in range(0, 8, window):
            part = ref.gru(x[:, start : start + window], h, reset[:, start : start + window], *weights)
            parts.append(part)
            h = part[:, -1].detach()
        return torch.cat(parts, 1)

    single, exact = value_and_gradients(cut, inputs, dh), value_and_gradients(cut, doubled(*inputs), dh)
    for name, *results in zip(NAMES, ours, single, exact, strict=True):
        as_exact_as_torch(*results, name)


def test_the_gradient_can_be_asked_for_more_than_once():
    """The levels differentiate one forward pass several times."""
    (x, h0, reset, *weights), dh = cell(1, 4, 5, 6, 7)
    weights = [w.requires_grad_() for w in weights]
    h = gru(x, h0, reset, *weights)
    first, second = (torch.autograd.grad(h, weights, dh, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    doubled_dh = torch.autograd.grad(h, weights, 2 * dh)
    assert all(torch.equal(2 * a, b) for a, b in zip(first, doubled_dh, strict=True))


def test_a_nan_input_reaches_the_result():
    (x, *rest), _ = cell(1, 2, 3, 4, 5)
    x[0, 0, 1, 2] = float("nan")
    h = gru(x, *rest)
    assert h[0, 0, 1].isnan().all()
    assert not h[0, :, 0].isnan().any()


def test_compiles_without_a_break(monkeypatch):
    monkeypatch.undo()
    inputs, _ = cell(1, 2, 3, 4, 5)
    assert torch.equal(torch.compile(gru, backend="aot_eager", fullgraph=True)(*inputs), gru(*inputs))


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, torch.zeros(3, 4, 5), "x must be"),
        (1, torch.zeros(1, 3, 6), "w_x must be"),
        (2, torch.zeros(3, 2, dtype=torch.bool), r"reset must be \[2, 3\]"),
        (2, torch.zeros(2, 3), "reset must be bool"),
        (5, torch.zeros(1, 5, 15, dtype=torch.float64), "float32 or float64"),
    ],
)
def test_what_does_not_fit_is_refused(position, value, message):
    inputs, _ = cell(1, 2, 3, 4, 5)
    with pytest.raises(UsageError, match=message):
        gru(*(value if i == position else t for i, t in enumerate(inputs)))
