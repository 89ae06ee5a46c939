"""Places past 2^31 elements, and graphs: what only a card can show."""

import pytest
import torch

from kpg_fast.kernels.gae import gpu as gae
from kpg_fast.kernels.gae import ref as gae_ref
from kpg_fast.kernels.k_level_surrogate import gpu as surrogate
from kpg_fast.kernels.level_step import gpu as level_step
from kpg_fast.kernels.linear import gpu as linear
from tests.gpu.exactness import move
from tests.kernels.test_gae import OPTIONS, rollout
from tests.kernels.test_k_level_surrogate import batch

BEYOND = 2**31


@pytest.fixture
def card(device):
    """The device, if it is a card with room."""
    if device.type != "cuda":
        pytest.skip("needs a card: a graph, or tens of gigabytes")
    return device


def room(card, gigabytes):
    if torch.cuda.mem_get_info(card)[0] < gigabytes * 2**30:
        pytest.skip(f"needs {gigabytes} GB of free memory")


def test_linear_rows_past_two_to_the_31(card):
    room(card, 32)
    rows = BEYOND // 64 + 1000
    x = torch.zeros(1, rows, 64, device=card)
    x[0, -1] = 1
    w = torch.randn(1, 64, 64, device=card)
    y, _ = linear.forward(x, w, None, "none", "fp32", False)
    torch.testing.assert_close(y[0, -1], w[0].sum(0))
    assert (y[0, -1000:-1] == 0).all()
    _, dw, _ = linear.backward(y, y, x, w, "none", "fp32", False, False)
    torch.testing.assert_close(dw[0], y[0, -1:].expand(64, -1))


def test_surrogate_rows_past_two_to_the_31(card):
    room(card, 32)
    steps, actions = BEYOND // (512 * 16) + 1, 16
    logits = torch.zeros(steps, 512, 1, actions, device=card)
    logits[-1, -1, 0, 3] = 2
    rows = torch.zeros(steps, 512, 1, device=card)
    action = torch.full((steps, 512, 1), 3, dtype=torch.int32, device=card)
    mask = torch.zeros_like(rows)
    mask[-1, -1] = 1
    _, gradient, log_prob, stats = surrogate.k_level_surrogate(
        logits, None, action, log_prob_old=rows, advantage=rows + 1, mask=mask, log_m=None,
        clip_eps=0.2, ent_coef=0.0, clip_mode="product", others_clip_eps=0.2,
    )  # fmt: skip
    torch.testing.assert_close(log_prob[-1, -1, 0], logits[-1, -1, 0].log_softmax(-1)[3])
    assert stats[-1] == 1
    assert (gradient[-1, -1] != 0).any()
    assert (gradient[-1, :-1] == 0).all()


def test_advantages_past_two_to_the_31(card):
    room(card, 64)
    reward, value, bootstrap, ends, cuts, *_ = move(card, *rollout(5, 3, 2))
    copies = BEYOND // value.numel() + 1
    wide = (reward.repeat(1, copies), value.repeat(1, copies, 1), bootstrap.repeat(copies, 1))
    flags = (ends.repeat(1, copies), cuts.repeat(1, copies))
    advantage, _ = gae.gae(*wide, *flags, None, None, **OPTIONS)
    expected, _ = gae.gae(reward, value, bootstrap, ends, cuts, None, None, **OPTIONS)
    torch.testing.assert_close(advantage[:, -3:], expected)


def test_a_captured_graph_reads_its_rates_anew(card):
    theta, grad = torch.ones(1, 5000, device=card), torch.full((1, 5000), 0.5, device=card)
    out, norm = torch.empty_like(theta), torch.empty(1, device=card)
    rates = torch.tensor([0.1, 1.0], device=card)

    def step():
        level_step.level_step(
            theta, grad, [], out, [], norm, "sgd", 0.0, (0.9, 0.999), 0.9, 1e-8, 0.0, None, 1, rates=rates
        )  # fmt: skip

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for value in (0.1, 0.2):
        rates[0] = value
        graph.replay()
        torch.testing.assert_close(out, theta - value * grad)


def test_kernels_are_captured_and_replayed_to_the_same_bits(card):
    inputs, more = move(card, *rollout(33, 7, 5)), move(card, *batch(9, 7, 5, 10))
    settings = (0.2, 0.03, "product", 0.1)
    eager = (*gae.gae(*inputs, **OPTIONS), *surrogate.k_level_surrogate(*more, *settings))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = (*gae.gae(*inputs, **OPTIONS), *surrogate.k_level_surrogate(*more, *settings))
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(eager, captured, strict=True))
    exact = gae_ref.gae(*(a.double() if a.is_floating_point() else a for a in inputs), **OPTIONS)
    torch.testing.assert_close(captured[0].double(), exact[0], rtol=1e-5, atol=1e-5)
