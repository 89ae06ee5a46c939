import pytest
import torch

from kpg_fast.kernels.agent_embedding import gpu, ref
from tests.gpu.exactness import hold, move, twice
from tests.kernels.oracle import value_and_gradients
from tests.kernels.test_agent_embedding import inputs_of

# one, primes, one past two blocks (of 16 rows of 128 units), one agent
SHAPES = [(1, 1, 1, 1), (2, 7, 3, 13), (1, 33, 2, 100), (2, 5, 1, 16)]


def all_of(x, id, dy):
    y = gpu.forward(x, id)
    return y, *gpu.backward(dy, y)


def definition(x, id, dy):
    return value_and_gradients(ref.agent_embedding, (x, id), dy)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_as_exact_as_torch(device, shape):
    inputs, dy = inputs_of(*shape)
    hold(("y", "dx", "did"), twice(all_of, *move(device, *inputs, dy)), definition, (*inputs, dy))


def test_a_nan_reaches_the_result_and_parameters_may_be_views(device):
    (x, id), _ = inputs_of(2, 9, 3, 4)
    x[0, 1, 2] = float("nan")
    x, id = move(device, x, id)
    y = gpu.forward(x, id)
    assert y[0, 1, :, 2].isnan().all()
    flat = torch.cat([id.flatten(1), id.flatten(1)], 1)
    assert torch.equal(gpu.forward(x, flat[:, 12:].view(2, 3, 4)).nan_to_num(7), y.nan_to_num(7))
