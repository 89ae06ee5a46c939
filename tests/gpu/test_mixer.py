import pytest
import torch

from kpg_fast.kernels.mixer import gpu, ref
from tests.gpu.exactness import hold, move, twice
from tests.kernels.test_mixer import inputs

# one, primes, one past a block (16 rows of 64 hidden units), one agent
SHAPES = [(1, 1, 1), (2, 17, 64), (1, 67, 17), (11, 3, 7)]


def mix_and_gradients(module):
    def f(dq_tot, q, w1, b1, w2, v, monotonic):
        return module.mix(q, w1, b1, w2, v, monotonic), *module.mix_backward(dq_tot, q, w1, b1, w2, monotonic)

    return f


@pytest.mark.parametrize("monotonic", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_mix_and_its_gradients(device, shape, monotonic):
    values = (torch.randn(shape[1], generator=torch.Generator().manual_seed(1)), *inputs(*shape), monotonic)
    ours = twice(mix_and_gradients(gpu), *move(device, *values))
    hold(("q_tot", "q", "w1", "b1", "w2"), ours, mix_and_gradients(ref), values)


@pytest.mark.parametrize("monotonic", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_live_agent_at_a_time(device, shape, monotonic):
    q_own, *rest = inputs(*shape)
    q_others = q_own + 0.3 * torch.randn(q_own.shape, generator=torch.Generator().manual_seed(2))
    values = (q_own, q_others, *rest, monotonic)
    hold(("q_tot", "slope"), twice(gpu.mix_one_live, *move(device, *values)), ref.mix_one_live, values)


def test_what_is_not_a_number_stays_so(device):
    """A card's own minimum would make a number of it, and a run that has diverged would go on."""
    q, w1, b1, w2, v = inputs(2, 3, 4)
    q[0, 1] = float("nan")
    values = move(device, q, w1, b1, w2, v)
    q_tot, gradients = gpu.mix(*values, True), gpu.mix_backward(values[4], *values[:4], True)
    live, slope = gpu.mix_one_live(values[0], *values, True)
    for value in (q_tot, live[1], slope[1], gradients[0][1]):
        assert value.cpu().isnan().tolist() == [False, True, False]


def test_extreme_inputs(device):
    q, w1, b1, w2, v = inputs(2, 3, 4)
    b1[0], b1[1] = -1e4, 1e4
    exact = ref.mix(*(a.double() for a in (q, w1, b1, w2, v)), True)
    values = move(device, q, w1, b1, w2, v)
    torch.testing.assert_close(gpu.mix(*values, True).cpu().double(), exact, rtol=1e-6, atol=1e-6)
    assert (gpu.mix_one_live(values[0], *values, True)[1][:, 0] < 1e-30).all()
