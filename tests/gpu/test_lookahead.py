"""Differences are judged relative to themselves, as on the CPU."""

import pytest
import torch

from kpg_fast.kernels.gru import gpu as gru_gpu
from kpg_fast.kernels.linear import gpu as linear_gpu
from kpg_fast.kernels.lookahead import gpu, ref
from tests.gpu.exactness import move, twice
from tests.kernels.oracle import doubled
from tests.kernels.test_lookahead import LIMITS, cell, exact_gru, layer, relative_error

RATES = [2e-5, 2e-3]


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("shape", [(1, 65, 33, 49), (3, 7, 5, 13)])
def test_a_layer_changes_as_two_exact_passes_differ(device, shape, rate, precision):
    inputs = layer(*shape, rate)
    exact = doubled(*inputs)
    x, dx, w, b, w_k, b_k = move(device, *inputs)
    _, sums = linear_gpu.forward(x, w, b, "relu", "fp32", True)
    for activation, kept in (("none", None), ("relu", sums)):
        (ours,) = twice(gpu.linear_difference, x, dx, w, w_k, b, b_k, kept, precision)
        truth = ref.linear_difference(exact[0], exact[1], exact[2], exact[4], exact[3], exact[5], activation)
        assert relative_error(ours, truth) < LIMITS[precision], activation
        (first,) = twice(gpu.linear_difference, x, None, w, w_k, None, None, kept, precision)
        assert (
            kept is not None
            or relative_error(first, ref.linear_difference(exact[0], None, exact[2], exact[4], None, None, "none"))
            < LIMITS[precision]
        )


def test_what_is_not_a_number_stays_so(device):
    x, dx, h0, reset, weights, weights_k = on(device, *cell(1, 2, 3, 4, 5, 2e-3))
    dx[0, 0, 1, 2] = float("nan")
    (ours,) = twice(gru_difference, x, dx, h0, reset & False, weights, weights_k, "fp32", equal_nan=True)
    assert ours[0, :, 1].isnan().all()
    assert not ours[0, :, ::2].isnan().any()


def gru_difference(x, dx, h0, reset, weights, weights_k, precision):
    h, gates = gru_gpu.forward(x, h0, reset, *weights, "fp32", True)
    return gpu.gru_difference(x, dx, h, gates, h0, reset, list(weights), list(weights_k), precision)


def on(device, x, dx, h0, reset, weights, weights_k):
    return (*move(device, x, dx, h0, reset), move(device, *weights), move(device, *weights_k))


@pytest.mark.parametrize(
    ("shape", "rate", "precision", "on_chip"),
    [
        ((1, 1, 1, 3, 5), 2e-5, "fp32", False),
        ((2, 3, 5, 7, 33), 2e-5, "fp32", False),
        ((2, 3, 5, 7, 9), 1.0, "fp32", False),
        ((2, 3, 5, 7, 33), 2e-5, "bf16", True),
        ((1, 2, 17, 7, 33), 2e-3, "bf16", False),
    ],
)
def test_hidden_states_change_as_two_exact_passes_differ(device, monkeypatch, shape, rate, precision, on_chip):
    monkeypatch.setitem(gru_gpu._ON_CHIP, "bf16", 128 if on_chip else 0)
    inputs = cell(*shape, rate)
    (ours,) = twice(gru_difference, *on(device, *inputs), precision)
    assert relative_error(ours, exact_gru(*inputs)) < LIMITS[precision]


@pytest.mark.parametrize(("reset", "precision"), [(0.0, "fp32"), (1.0, "bf16")], ids=["never", "every-step"])
def test_resets_at_every_step_or_never_and_nothing_where_nothing_moved(device, reset, precision):
    inputs = cell(2, 3, 5, 6, 7, 1e-3, reset)
    (ours,) = twice(gru_difference, *on(device, *inputs), precision)
    assert relative_error(ours, exact_gru(*inputs)) < LIMITS[precision]
    x, dx, h0, starts, weights, _ = on(device, *inputs)
    assert (gru_difference(x, dx * 0, h0, starts, weights, weights, precision) == 0).all()


@pytest.mark.parametrize("rate", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("actions", [1, 5, 17])
def test_log_probabilities_change_as_two_exact_policies_differ(device, actions, rate):
    generator = torch.Generator().manual_seed(actions)
    logits, d = (torch.randn(40, actions, generator=generator) for _ in range(2))
    avail = torch.rand(40, actions, generator=generator) < 0.7
    avail[:, 0] = True
    avail[0] = False
    action = torch.where(avail, torch.rand(40, actions, generator=generator), -1.0).argmax(-1)
    for mask in (avail, None):
        (ours,) = twice(gpu.log_prob_difference, *move(device, logits, rate * d, mask, action))
        exact = ref.log_prob_difference(logits.double(), (rate * d).double(), mask, action)
        assert (ours - exact).norm() <= 1e-6 * rate * d.norm()
        assert mask is None or ours[0] == 0
