import numpy as np
import pytest
import torch

from kpg_fast import _C
from kpg_fast.errors import UsageError
from kpg_fast.kernels.policy import log_prob_entropy, ref, sample
from tests.kernels.oracle import as_exact_as_torch, kernels, threads

SHAPES = [(1, 1), (7, 5), (3, 2, 17), (2, 3, 5, 36), (1100, 10)]


def rows(*shape, scale=3.0, dead=True):
    """Logits, what is available (the first row has nothing if ``dead``), and available actions."""
    generator = torch.Generator().manual_seed(sum(shape))
    logits = torch.randn(shape, generator=generator) * scale
    avail = torch.rand(shape, generator=generator) < 0.6
    avail[..., 0] |= ~avail.any(-1)
    action = torch.where(avail, torch.rand(shape, generator=generator), -1.0).argmax(-1).int()
    if dead:
        avail.view(-1, shape[-1])[0] = False
    return logits, avail, action


def weighted(f, logits, avail, action):
    """log_prob, entropy and the gradient of a weighted sum of both."""
    logits = logits.clone().requires_grad_()
    log_prob, entropy = f(logits, avail, action)
    weight = torch.linspace(-1, 2, log_prob.numel(), dtype=logits.dtype).view(log_prob.shape)
    (gradient,) = torch.autograd.grad((weight * log_prob + (0.5 - weight) * entropy).sum(), logits)
    return log_prob.detach(), entropy.detach(), gradient


@pytest.mark.parametrize("isa", _C.kernel_names())
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_as_exact_as_torch(shape, masked, isa):
    logits, avail, action = rows(*shape)
    avail = avail if masked else None
    with kernels(isa):
        ours = weighted(log_prob_entropy, logits, avail, action)
    single = weighted(ref.log_prob_entropy, logits, avail, action)
    exact = weighted(ref.log_prob_entropy, logits.double(), avail, action)
    for name, *results in zip(("log_prob", "entropy", "dlogits"), ours, single, exact, strict=True):
        as_exact_as_torch(*results, name)


def test_a_row_with_nothing_available_counts_for_nothing():
    logits, avail, action = rows(3, 17)
    log_prob, entropy, gradient = weighted(log_prob_entropy, logits, avail, action)
    assert log_prob[0] == entropy[0] == 0
    assert (gradient[0] == 0).all()
    assert (gradient[1:] != 0).any(-1).all()


def test_an_unavailable_action_has_no_probability_and_pushes_only_the_others():
    logits, avail = torch.randn(1, 4), torch.tensor([[True, False, True, True]])
    log_prob, _ = log_prob_entropy(logits, avail, torch.tensor([1]))
    assert log_prob < -9e9
    *_, ours = weighted(log_prob_entropy, logits, avail, torch.tensor([1]))
    *_, exact = weighted(ref.log_prob_entropy, logits, avail, torch.tensor([1]))
    torch.testing.assert_close(ours, exact)


def test_far_logits_stay_finite():
    logits = torch.tensor([[0.0, -500.0, 80.0]])
    ours = weighted(log_prob_entropy, logits, None, torch.tensor([1]))
    exact = weighted(ref.log_prob_entropy, logits.double(), None, torch.tensor([1]))
    for value, truth in zip(ours, exact, strict=True):
        torch.testing.assert_close(value.double(), truth, rtol=1e-6, atol=1e-30)


def test_philox_gives_the_published_numbers():
    """Known answers of the Random123 distribution (kat_vectors, philox4x32 with 10 rounds)."""
    words = ref.philox(0, np.zeros(4, np.uint32))
    assert [f"{w:08x}" for w in words] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    counter = np.array([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], np.uint32)
    words = ref.philox(0x299F31D0A4093822, counter)
    assert [f"{w:08x}" for w in words] == ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"]


@pytest.mark.parametrize("isa", _C.kernel_names())
def test_draws_are_those_of_the_definition(isa):
    logits, avail, _ = rows(400, 17)
    row = torch.arange(400) * 10_000_019 % 2**32
    seed, step = torch.arange(400) * 2**40 + 7, torch.arange(400) * 2**33 + 1
    with kernels(isa):
        action, log_prob = sample(logits, avail, seed, row, step, stream=3)
    expected, _ = ref.sample(logits.double(), avail, seed, row, step, 3, False)
    assert torch.equal(action, expected)
    torch.testing.assert_close(log_prob, log_prob_entropy(logits, avail, action)[0])


def test_draws_follow_the_probabilities_and_never_take_what_is_not_available():
    logits, avail, _ = rows(1, 6, scale=1.0, dead=False)
    count = 40_000
    action, _ = sample(logits.expand(count, 6), avail.expand(count, 6), 11, torch.arange(count), 5)
    share = torch.bincount(action.long(), minlength=6) / count
    p = ref.masked_log_softmax(logits, avail).exp()[0]
    assert (share[~avail[0]] == 0).all()
    assert ((share - p).abs() < 4 * (p * (1 - p) / count).sqrt() + 1e-9).all()


def test_a_draw_depends_on_seed_row_step_and_stream_alone():
    logits, _, _ = rows(300, 9, scale=0.1)
    row = torch.arange(300)
    whole, _ = sample(logits, None, 3, row, 8)
    assert torch.equal(sample(logits[100:110], None, 3, row[100:110], 8)[0], whole[100:110])
    with threads(2):
        assert torch.equal(sample(logits.repeat(20, 1), None, 3, row.repeat(20), 8)[0], whole.repeat(20))
    others = [
        sample(logits, None, *changed)[0] for changed in ((4, row, 8), (3, row + 300, 8), (3, row, 9), (3, row, 8, 1))
    ]
    assert all((other != whole).float().mean() > 0.5 for other in others)


def test_greedy_takes_the_first_of_the_most_probable_that_are_available():
    logits = torch.tensor([[5.0, 2.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0], [-9.0, -5.0, -5.0, -7.0]])
    avail = torch.tensor([[False, True, True, True], [False, False, False, False], [True, False, True, True]])
    action, log_prob = sample(logits, avail, 0, torch.arange(3), 0, greedy=True)
    assert action.tolist() == [1, 0, 2]
    assert log_prob[1] == 0


@pytest.mark.parametrize("action", [-1, 4])
def test_an_action_out_of_range_is_refused(action):
    with pytest.raises(ValueError, match=r"actions must lie in 0 \.\. 3"):
        log_prob_entropy(torch.zeros(2, 4), None, torch.tensor([0, action]))


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="avail must be"):
        log_prob_entropy(torch.zeros(2, 4), torch.ones(2, 3, dtype=torch.bool), torch.zeros(2))
    with pytest.raises(UsageError, match="avail must be bool"):
        sample(torch.zeros(2, 4), torch.ones(2, 4), 0, torch.arange(2), 0)
