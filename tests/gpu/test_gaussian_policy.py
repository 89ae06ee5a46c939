import pytest
import torch

from kpg_fast.kernels.gaussian_policy import cpu, gpu
from tests.gpu.exactness import move, twice
from tests.gpu.test_policy import counters


@pytest.mark.parametrize("size", [1, 3, 4, 6, 17])
@pytest.mark.parametrize("shape", [(1,), (7, 5), (3, 67)])
def test_noise_is_the_cpus(device, shape, size):
    inputs = (*counters(shape), 2**31, size)
    (noise,) = twice(lambda *a: (gpu.standard_normal(*a),), *move(device, *inputs))
    torch.testing.assert_close(noise.cpu(), cpu.standard_normal(*inputs), rtol=1e-6, atol=1e-7)


def test_noise_depends_on_its_counters_alone(device):
    inputs = move(device, *counters((64,)))
    together, alone = gpu.standard_normal(*inputs, 0, 5), gpu.standard_normal(*(a[33:40] for a in inputs), 0, 5)
    assert torch.equal(together[33:40], alone)
    assert not torch.equal(together, gpu.standard_normal(*inputs, 1, 5))
    assert not torch.equal(together, gpu.standard_normal(*inputs[:2], inputs[2] + 1, 0, 5))
