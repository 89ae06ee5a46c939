from math import prod

import pytest
import torch

from kpg_fast.kernels.gru import gpu, ref
from tests.gpu.exactness import TIMES, hold, move, twice
from tests.kernels.oracle import as_exact_as_torch, doubled, value_and_gradients
from tests.kernels.test_gru import NAMES, cell

# (G, T, R, I, H), how often an episode begins: ones, primes, one past a block of rows, of units and of depth
CASES = [
    ((1, 1, 1, 1, 1), 0.2),
    ((2, 3, 5, 7, 13), 0.0),
    ((2, 3, 5, 7, 13), 1.0),
    ((1, 2, 17, 5, 33), 0.2),
]


def all_of(x, h0, reset, w_x, b_x, w_h, b_n, dh, precision, window=0):
    h, gates = gpu.forward(x, h0, reset, w_x, b_x, w_h, b_n, precision, True)
    return h, *gpu.backward(dh, h, gates, x, h0, reset, w_x, b_x, w_h, b_n, precision, window, True)


def definition(*inputs):
    return value_and_gradients(ref.gru, inputs[:7], inputs[7])


@pytest.mark.parametrize(("shape", "reset"), CASES)
def test_values_and_gradients_are_as_exact_as_torch(device, shape, reset):
    draws = 4 if prod(shape) == 1 else 1  # torch's error in a single number is a matter of luck
    cells = [(*inputs, dh) for inputs, dh in (cell(*shape, reset=reset, draw=draw) for draw in range(draws))]
    ours = stacked([twice(all_of, *move(device, *inputs), "fp32") for inputs in cells])
    single = stacked([definition(*inputs) for inputs in cells])
    exact = stacked([definition(*doubled(*inputs)) for inputs in cells])
    for name, *values in zip(NAMES, ours, single, exact, strict=True):
        as_exact_as_torch(*values, name, TIMES)


def stacked(draws):
    return [torch.stack(values) for values in zip(*draws, strict=True)]


@pytest.mark.parametrize(("hidden", "on_chip"), [(16, 128), (70, 128), (33, 0)])
def test_bf16_on_the_chip_and_streamed(device, monkeypatch, hidden, on_chip):
    """Against float64, errors are those of 8 bits."""
    monkeypatch.setitem(gpu._ON_CHIP, "bf16", on_chip)
    inputs, dh = cell(1, 3, 5, 7, hidden)
    ours = twice(all_of, *move(device, *inputs, dh, "bf16"))
    exact = definition(*doubled(*inputs), dh.double())
    for name, value, truth in zip(NAMES, ours, exact, strict=True):
        assert not value.isnan().any(), name
        assert (value - truth).norm() < 0.01 * truth.norm(), name
    assert (ours[0] - exact[0]).abs().max() > 1e-5


@pytest.mark.parametrize("hidden", [20, 130])
def test_bf16_rounds_the_factors_and_nothing_else(device, hidden):
    """One step from a state that bfloat16 holds: the definition with rounded factors, to float32's error."""
    (x, h0, reset, w_x, b_x, w_h, b_n), _ = cell(1, 1, 18, 37, hidden)
    x, h0, w_x, w_h = (t.bfloat16().float() for t in (x, h0, w_x, w_h))
    inputs = (x, h0, reset, w_x, b_x, w_h, b_n)
    ours, gates = gpu.forward(*move(device, *inputs), "bf16", False)
    assert gates.numel() == 0
    hold(["h"], [ours.cpu()], ref.gru, inputs)


@pytest.mark.parametrize("hopper", [True, False])
@pytest.mark.parametrize("on_chip", [True, False])
def test_many_rows_take_larger_blocks(device, monkeypatch, on_chip, hopper):
    """The launches of thousands of rows, on a few."""
    hidden = 33
    monkeypatch.setitem(gpu._ON_CHIP, "bf16", 128 if on_chip else 0)
    inputs, dh = cell(1, 2, 65, 3, hidden)
    expected = definition(*doubled(*inputs), dh.double())
    sizes, launch = [], gpu.choose_launch

    def large(groups, rows, *rest, forward):
        chosen = launch(1, 64 * 132, hidden, "bf16", hopper, forward)
        sizes.append(chosen.options["ROWS"])
        return chosen._replace(grid=(-(-rows // sizes[-1]), groups))

    monkeypatch.setattr(gpu, "choose_launch", large)
    for name, value, truth in zip(NAMES, twice(all_of, *move(device, *inputs, dh, "bf16")), expected, strict=True):
        assert (value - truth).norm() < 0.01 * truth.norm(), name
    assert min(sizes) >= 32


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_window_ends_where_its_first_step_begins(device, precision):
    """As if the hidden state that a window begins with were data."""
    inputs, dh = cell(2, 5, 3, 5, 6)

    def cut(x, h0, reset, *weights):
        parts, h = [], h0
        for start in (0, 2, 4):
            parts.append(ref.gru(x[:, start : start + 2], h, reset[:, start : start + 2], *weights))
            h = parts[-1][:, -1].detach()
        return torch.cat(parts, 1)

    exact = value_and_gradients(cut, doubled(*inputs), dh.double())
    ours = twice(all_of, *move(device, *inputs, dh), precision, window=2)
    for name, value, truth in zip(NAMES, ours, exact, strict=True):
        assert (value - truth).norm() < (0.01 if precision == "bf16" else 1e-6) * truth.norm(), name


def test_one_reset_for_all_sets_and_views_of_flat_parameters(device):
    (x, h0, reset, *weights), dh = cell(3, 2, 5, 6, 7)
    x, h0, reset, dh, *weights = move(device, x, h0, reset, dh, *weights)
    flat = torch.cat([torch.zeros(3, 1, device=device), *(w.flatten(1) for w in weights)], 1)[:, 1:]
    views = [v.view_as(w) for v, w in zip(flat.split([w[0].numel() for w in weights], 1), weights, strict=True)]
    expected = all_of(x, h0, reset[:1].expand(3, -1, -1), *weights, dh, "fp32")
    ours = all_of(x, h0, reset[0], *views, dh, "fp32")
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_a_reset_row_forgets_even_what_is_not_a_number(device):
    (x, h0, _, *weights), _ = cell(1, 2, 3, 4, 5)
    reset = torch.zeros(2, 3, dtype=torch.bool)
    reset[0, 1] = True
    h0[0, 1:] = float("nan")
    h, _ = gpu.forward(*move(device, x, h0, reset, *weights), "fp32", False)
    assert not h[0, :, :2].isnan().any()
    assert h[0, :, 2].isnan().all()
