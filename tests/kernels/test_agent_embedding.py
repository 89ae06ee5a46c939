import pytest
import torch

from kpg_fast.errors import UsageError
from kpg_fast.kernels.agent_embedding import agent_embedding, ref
from tests.kernels.oracle import as_exact_as_torch, doubled, threads, value_and_gradients

# G, M, N, H: ones, primes, several blocks of rows
SHAPES = [(1, 1, 1, 1), (2, 7, 3, 13), (1, 193, 27, 16), (3, 65, 5, 128)]


def inputs_of(sets, rows, agents, hidden):
    generator = torch.Generator().manual_seed(rows)
    shapes = (sets, rows, hidden), (sets, agents, hidden), (sets, rows, agents, hidden)
    x, id, dy = (torch.randn(shape, generator=generator) for shape in shapes)
    return (x, id), dy


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_as_exact_as_torch(shape):
    inputs, dy = inputs_of(*shape)
    ours, single = (value_and_gradients(f, inputs, dy) for f in (agent_embedding, ref.agent_embedding))
    exact = value_and_gradients(ref.agent_embedding, doubled(*inputs), dy)
    for name, *results in zip(("y", "dx", "did"), ours, single, exact, strict=True):
        as_exact_as_torch(*results, name)


def test_results_do_not_depend_on_the_number_of_threads():
    inputs, dy = inputs_of(2, 500, 5, 64)
    results = []
    for count in (1, 2, 3):
        with threads(count):
            results.append(value_and_gradients(agent_embedding, inputs, dy))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_nan_reaches_the_result_and_zero_passes_no_gradient():
    x, id = torch.tensor([[[float("nan"), 1.0]]]), torch.tensor([[[0.0, -1.0]]])
    y, dx, did = value_and_gradients(agent_embedding, (x, id), torch.ones(1, 1, 1, 2))
    assert y[..., 0].isnan().all()
    assert y[..., 1] == dx[..., 1] == did[..., 1] == 0


def test_views_of_flat_parameters():
    (x, id), dy = inputs_of(2, 9, 3, 4)
    flat = torch.cat([id.flatten(1), id.flatten(1)], 1).requires_grad_()
    y = agent_embedding(x, flat[:, 12:].view(2, 3, 4))
    (gradient,) = torch.autograd.grad(y, flat, dy)
    expected = value_and_gradients(agent_embedding, (x, id), dy)
    assert torch.equal(y, expected[0])
    assert torch.equal(gradient[:, 12:], expected[2].flatten(1))


def test_compiles_without_a_break(monkeypatch):
    monkeypatch.undo()
    inputs, _ = inputs_of(2, 9, 3, 4)
    compiled = torch.compile(agent_embedding, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(*inputs), agent_embedding(*inputs))


def test_what_does_not_fit_is_refused():
    (x, id), _ = inputs_of(2, 9, 3, 4)
    with pytest.raises(UsageError, match="id must be"):
        agent_embedding(x, id[:1])
    with pytest.raises(UsageError, match="float32 or float64"):
        agent_embedding(x.half(), id.half())
