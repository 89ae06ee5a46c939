import pytest
import torch

from kpg_fast.kernels.policy import cpu, gpu, ref
from tests.gpu.exactness import hold, move, twice
from tests.kernels.test_policy import rows, weighted

# one, primes, one past a block of rows (64 of them hold up to 16 actions), many actions
SHAPES = [(1, 1), (7, 5), (3, 43, 10), (2, 3, 5, 36)]


def value_and_gradient(logits, avail, action):
    log_prob, entropy = gpu.log_prob_entropy(logits, avail, action)
    weight = torch.linspace(-1, 2, log_prob.numel()).view(log_prob.shape).to(logits.device)
    return log_prob, entropy, gpu.log_prob_entropy_backward(weight, 0.5 - weight, logits, avail, action)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_as_exact_as_torch(device, shape, masked):
    logits, avail, action = rows(*shape)
    inputs = (logits, avail if masked else None, action)
    ours = twice(value_and_gradient, *move(device, *inputs))
    hold(("log_prob", "entropy", "dlogits"), ours, lambda *a: weighted(ref.log_prob_entropy, *a), inputs)


def test_actions_that_cannot_be_taken(device):
    logits, avail = torch.randn(1, 4), torch.tensor([[True, False, True, True]])
    inputs = move(device, logits, avail, torch.tensor([1]))
    assert gpu.log_prob_entropy(*inputs)[0] < -9e9
    gradient = value_and_gradient(*inputs)[2].cpu()
    torch.testing.assert_close(gradient, weighted(ref.log_prob_entropy, logits, avail, torch.tensor([1]))[2])
    for action in (-1, 4):
        assert gpu.log_prob_entropy(*move(device, logits, avail, torch.tensor([action])))[0].isnan().all()


def counters(shape, seed=1234567890123):
    """Seeds, rows and steps that use both halves of their 64 bits."""
    row = torch.arange(torch.Size(shape).numel()).view(shape) + 2**31
    return torch.full(shape, seed), row, torch.full(shape, 5 * 2**32 + 77)


def test_noise_is_the_cpus_bit_for_bit(device):
    """With n equal actions the draw is the uniform number itself: action = floor(n u), here to eight bits and more."""
    shape = (128,)
    logits = torch.zeros(*shape, 256)
    inputs = (logits, None, *counters(shape), 3, False)
    ours, theirs = gpu.sample(*move(device, *inputs))[0].cpu(), cpu.sample(*inputs)[0]
    assert torch.equal(ours, theirs)
    assert len(theirs.unique()) > 60
    u = ref.uniform(*counters(shape), 3)
    assert (theirs - (256 * u).floor()).abs().max() <= 1  # a cumulated sum may round across a bound


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("actions", [1, 10])
def test_draws_equal_the_cpus(device, actions, greedy):
    logits, avail, _ = rows(5, 67, actions, scale=1.0)
    inputs = (logits, avail, *counters((5, 67)), 1, greedy)
    action, log_prob = twice(gpu.sample, *move(device, *inputs))
    action_cpu, log_prob_cpu = cpu.sample(*inputs)
    assert torch.equal(action, action_cpu)
    torch.testing.assert_close(log_prob, log_prob_cpu, rtol=1e-5, atol=1e-6)


def test_a_draw_depends_on_its_counters_alone(device):
    logits, avail, _ = rows(64, 10, scale=1.0)
    inputs = move(device, logits, avail, *counters((64,)))
    together, alone = gpu.sample(*inputs, 0, False)[0], gpu.sample(*(a[33:40] for a in inputs), 0, False)[0]
    assert torch.equal(together[33:40], alone)
    for changed in (gpu.sample(*inputs, 1, False)[0], gpu.sample(*inputs[:4], inputs[4] + 1, 0, False)[0]):
        assert not torch.equal(together, changed)
