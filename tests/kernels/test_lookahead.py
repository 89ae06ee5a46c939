"""Differences are judged relative to themselves: what is lost is lost of the correction a level makes."""

import pytest
import torch
from torch import Tensor

from kpg_fast import _C
from kpg_fast.errors import UsageError
from kpg_fast.kernels import gru as gru_op
from kpg_fast.kernels import linear as linear_op
from kpg_fast.kernels.lookahead import gru_difference, linear_difference, log_prob_difference, ref
from kpg_fast.kernels.policy import ref as policy
from tests.kernels.oracle import doubled, kernels, threads

RATES = [2e-5, 2e-4, 2e-3]  # Adam moves every parameter by about the learning rate
LIMITS = {"fp32": 5e-6, "bf16": 0.005}  # of the RMS difference; bf16 holds 8 bits, float32 24 and a long sum
PRECISIONS = list(LIMITS)


def moved(tensors, rate, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return tuple(t + rate * torch.randn(t.shape, generator=generator).sign() for t in tensors)


def relative_error(ours: Tensor, exact: Tensor) -> float:
    assert ours.shape == exact.shape
    assert not ours.isnan().any()
    return float((ours - exact).norm() / exact.norm())


def layer(sets, rows, size, out, rate):
    generator = torch.Generator().manual_seed(rows + size)
    shapes = (sets, rows, size), (sets, rows, size), (sets, size, out), (sets, out)
    x, dx, w, b = (torch.randn(shape, generator=generator) for shape in shapes)
    w = w / size**0.5
    return x, rate * dx, w, b, *moved((w, b), rate)


def cell(sets, steps, rows, size, hidden, rate, reset=0.1):
    generator = torch.Generator().manual_seed(steps + rows)

    def normal(*shape, scale=1.0):
        return torch.randn(shape, generator=generator) * scale

    x, h0 = normal(sets, steps, rows, size), normal(sets, rows, hidden, scale=0.5)
    weights = (
        normal(sets, size, 3 * hidden, scale=size**-0.5),
        normal(sets, 3 * hidden, scale=0.1),
        normal(sets, hidden, 3 * hidden, scale=hidden**-0.5),
        normal(sets, hidden, scale=0.1),
    )
    starts = torch.rand(sets, steps, rows, generator=generator) < reset
    return x, rate * normal(*x.shape), h0, starts, weights, moved(weights, rate)


def run_gru(x, dx, h0, reset, weights, weights_k, precision):
    h, gates = gru_op.gru_and_gates(x, h0, reset, *weights)
    return gru_difference(x, dx, h, gates, h0, reset, weights, weights_k, precision)


def exact_gru(x, dx, h0, reset, weights, weights_k):
    x, dx, h0 = doubled(x, dx, h0)
    return ref.gru_difference(x, dx, h0, reset, doubled(*weights), doubled(*weights_k))


@pytest.mark.parametrize("isa", _C.kernel_names())
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("shape", [(1, 65, 127, 49), (3, 40, 33, 17), (1, 70, 300, 10)])
def test_a_layer_changes_as_two_exact_passes_differ(shape, rate, precision, isa):
    x, dx, w, b, w_k, b_k = layer(*shape, rate)
    _, sums = linear_op.linear_and_sums(x, w, b)
    exact = doubled(x, dx, w, w_k, b, b_k)
    with kernels(isa):
        for activation, kept in (("none", None), ("relu", sums)):
            ours = linear_difference(x, dx, w, w_k, b, b_k, kept, precision)
            assert relative_error(ours, ref.linear_difference(*exact, activation)) < LIMITS[precision], activation
            first = linear_difference(x, None, w, w_k, b, b_k, kept, precision)
            truth = ref.linear_difference(exact[0], None, *exact[2:], activation)
            assert relative_error(first, truth) < LIMITS[precision], activation


@pytest.mark.parametrize("isa", _C.kernel_names())
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 3, 5), (2, 7, 53, 20, 33), (1, 40, 5, 64, 64)])
def test_hidden_states_change_as_two_exact_passes_differ(shape, rate, precision, isa):
    inputs = cell(*shape, rate)
    with kernels(isa):
        ours = run_gru(*inputs, precision)
    assert relative_error(ours, exact_gru(*inputs)) < LIMITS[precision]


def test_two_passes_in_bf16_would_lose_the_difference():
    """The reason for all this: at the learning rate of a late update nothing is left of it."""
    x, dx, h0, reset, weights, weights_k = inputs = cell(1, 20, 50, 64, 64, 2e-5)
    before, after = (gru_op.gru(a, h0, reset, *w, precision="bf16") for a, w in ((x, weights), (x + dx, weights_k)))
    exact = exact_gru(*inputs)
    assert relative_error(after - before, exact) > 0.3
    assert relative_error(run_gru(*inputs, "bf16"), exact) < LIMITS["bf16"]


@pytest.mark.parametrize("reset", [0.0, 1.0], ids=["never", "every-step"])
def test_resets_at_every_step_or_never(reset):
    inputs = cell(2, 6, 9, 10, 12, 1e-3, reset)
    assert relative_error(run_gru(*inputs, "fp32"), exact_gru(*inputs)) < LIMITS["fp32"]


def test_saturated_gates_change_little_and_exactly():
    x, dx, *rest = cell(1, 3, 20, 10, 12, 1e-3)
    assert relative_error(run_gru(x * 30, dx, *rest, "fp32"), exact_gru(x * 30, dx, *rest)) < 2e-5


def test_saturated_gates_that_are_turned_around_stay_finite():
    x, dx, h0, reset, weights, _ = cell(1, 3, 20, 10, 12, 1e-3)
    turned = tuple(-w for w in weights)
    assert run_gru(x * 60, dx, h0, reset, weights, turned, "fp32").isfinite().all()


def test_a_large_step_is_followed_as_well():
    inputs = cell(1, 5, 20, 10, 12, 1.0)
    assert relative_error(run_gru(*inputs, "fp32"), exact_gru(*inputs)) < LIMITS["fp32"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nothing_changes_where_nothing_moved(precision):
    x, dx, h0, reset, weights, _ = cell(1, 4, 9, 10, 12, 0.0)
    assert (run_gru(x, dx, h0, reset, weights, weights, precision) == 0).all()
    x, _, w, b, *_ = layer(1, 9, 10, 12, 0.0)
    _, sums = linear_op.linear_and_sums(x, w, b)
    assert (linear_difference(x, None, w, w, b, b, sums, precision) == 0).all()


@pytest.mark.parametrize("isa", _C.kernel_names())
@pytest.mark.parametrize("rate", [1e-6, *RATES, 1.0])
@pytest.mark.parametrize("actions", [1, 5, 17])
def test_log_probabilities_change_as_two_exact_policies_differ(actions, rate, isa):
    generator = torch.Generator().manual_seed(actions)
    logits, d = (torch.randn(40, actions, generator=generator) for _ in range(2))
    avail = torch.rand(40, actions, generator=generator) < 0.7
    avail[:, 0] = True
    avail[0] = False
    action = torch.where(avail, torch.rand(40, actions, generator=generator), -1.0).argmax(-1)
    for mask in (avail, None):
        with kernels(isa):
            ours = log_prob_difference(logits, rate * d, mask, action)
        exact = ref.log_prob_difference(logits.double(), (rate * d).double(), mask, action)
        assert (ours - exact).norm() <= 1e-6 * (exact.norm() + rate * actions**0.5)
        if mask is not None:
            assert ours[0] == 0


def test_a_whole_network_in_bf16_keeps_the_change_of_the_log_probabilities():
    """FC-ReLU-GRU-FC-ReLU-FC and the policy, every learning rate of an annealed run."""
    generator = torch.Generator().manual_seed(3)
    steps, rows, size, hidden, actions = 30, 60, 48, 64, 10
    _, _, h0, reset, gru_now, _ = cell(1, steps, rows, hidden, hidden, 0.0)
    flat = torch.randn(1, steps * rows, size, generator=generator)
    layers = [layer(1, 1, i, o, 0.0)[2:4] for i, o in ((size, hidden), (hidden, hidden), (hidden, actions))]
    action = torch.randint(actions, (steps * rows,), generator=generator)

    def log_prob(flat, h0, first, cell_weights, middle, last):
        y = torch.relu(flat @ first[0] + first[1][:, None])
        y = gru_op.ref.gru(y.view(1, steps, rows, hidden), h0, reset, *cell_weights)
        y = torch.relu(y.view(1, -1, hidden) @ middle[0] + middle[1][:, None])
        return policy.log_prob_entropy((y @ last[0] + last[1][:, None])[0], None, action)[0]

    now = (layers[0], gru_now, *layers[1:])
    y0, sums0 = linear_op.linear_and_sums(flat, *layers[0])
    shaped = y0.view(1, steps, rows, hidden)
    h, gates = gru_op.gru_and_gates(shaped, h0, reset, *gru_now)
    y1, sums1 = linear_op.linear_and_sums(h.view(1, -1, hidden), *layers[1])
    logits = linear_op.linear(y1, *layers[2])
    for rate in RATES:
        k = [moved(part, rate, seed) for seed, part in enumerate(now)]
        d = linear_difference(flat, None, now[0][0], k[0][0], now[0][1], k[0][1], sums0)
        d = gru_difference(shaped, d.view(shaped.shape), h, gates, h0, reset, gru_now, k[1])
        d = linear_difference(h.flatten(1, 2), d.flatten(1, 2), now[2][0], k[2][0], now[2][1], k[2][1], sums1)
        d = linear_difference(y1, d, now[3][0], k[3][0], now[3][1], k[3][1])
        ours = log_prob_difference(logits[0], d[0], None, action)
        single = [doubled(*part) for part in (*now, *k)]
        exact = log_prob(*doubled(flat, h0), *single[4:]) - log_prob(*doubled(flat, h0), *single[:4])
        assert relative_error(ours, exact) < 0.01, rate


@pytest.mark.parametrize("precision", PRECISIONS)
def test_results_do_not_depend_on_the_number_of_threads(precision):
    inputs, (x, dx, w, b, w_k, b_k) = cell(2, 9, 53, 20, 30, 1e-3), layer(2, 1500, 60, 70, 1e-3)
    results = []
    for count in (1, 2, 3):
        with threads(count):
            d = linear_difference(x, dx, w, w_k, b, b_k, None, precision)
            results.append((run_gru(*inputs, precision), d))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_what_does_not_fit_is_refused():
    x, dx, w, b, w_k, b_k = layer(2, 9, 5, 4, 1e-3)
    with pytest.raises(UsageError, match="w_k must be"):
        linear_difference(x, dx, w, w_k[:, :4], b, b_k)
    with pytest.raises(UsageError, match="takes float32"):
        linear_difference(*doubled(x, dx, w, w_k, b, b_k))
    with pytest.raises(UsageError, match="precision must be"):
        linear_difference(x, dx, w, w_k, b, b_k, precision="fp8")
    with pytest.raises(ValueError, match="b and b_k"):
        linear_difference(x, dx, w, w_k, b, None)
    with pytest.raises(UsageError, match="dlogits must be"):
        log_prob_difference(torch.zeros(2, 4), torch.zeros(2, 3), None, torch.zeros(2))
    x, dx, h0, reset, weights, weights_k = cell(1, 2, 3, 4, 5, 1e-3)
    h, gates = gru_op.gru_and_gates(x, h0, reset, *weights)
    with pytest.raises(UsageError, match="dx must be"):
        gru_difference(x, dx[:, :1], h, gates, h0, reset, weights, weights_k)
