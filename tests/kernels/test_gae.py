import pytest
import torch

from kpg_fast.kernels.gae import gae, ref
from tests.kernels.oracle import as_exact_as_torch, doubled, threads

SHAPES = [(1, 1, 1), (5, 3, 2), (33, 7, 5), (128, 200, 3)]
OPTIONS = {"gamma": 0.99, "gae_lambda": 0.95}


def rollout(steps, envs, agents, ends=0.1):
    generator = torch.Generator().manual_seed(steps)

    def flags(share):
        return torch.rand(steps, envs, generator=generator) < share

    reward = torch.randn(steps, envs, generator=generator)
    value, last_value = torch.randn(2, steps, envs, agents, generator=generator)
    bootstrap = torch.randn(envs, agents, generator=generator)
    return reward, value, bootstrap, flags(ends), flags(ends), last_value, flags(0.9)


@pytest.mark.parametrize("ends", [0.0, 0.1, 1.0], ids=["no-ends", "ends", "every-step"])
@pytest.mark.parametrize("shape", SHAPES)
def test_as_exact_as_torch(shape, ends):
    inputs = rollout(*shape, ends)
    ours, single = gae(*inputs, **OPTIONS), ref.gae(*inputs, **OPTIONS)
    exact = ref.gae(*doubled(*inputs), **OPTIONS)
    for name, *results in zip(("advantage", "returns"), ours, single, exact, strict=True):
        as_exact_as_torch(*results, name)


def test_a_hand_worked_episode():
    """gamma = 1/2, lambda = 1: the advantage is the discounted return to the end of the episode less the value."""
    reward = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    value = torch.tensor([0.5, 0.25, 1.0, 2.0]).view(4, 1, 1)
    terminated = torch.tensor([[False], [True], [False], [False]])
    truncated = torch.tensor([[False], [False], [True], [False]])
    last_value = torch.tensor([100.0, 100.0, 6.0, 100.0]).view(4, 1, 1)
    inputs = (reward, value, torch.tensor([[10.0]]), terminated, truncated, last_value)
    advantage, returns = gae(*inputs, gamma=0.5, gae_lambda=1.0)
    assert returns.flatten().tolist() == [1 + 0.5 * 2, 2, 4 + 0.5 * 6, 8 + 0.5 * 10]
    assert advantage.flatten().tolist() == [2 - 0.5, 2 - 0.25, 7 - 1, 13 - 2]


def test_a_step_that_is_not_valid_passes_nothing_on():
    reward, value, bootstrap, *_ = rollout(4, 1, 2)
    never, valid = torch.zeros(4, 1, dtype=torch.bool), torch.tensor([[True], [True], [False], [True]])
    advantage, _ = gae(reward, value, bootstrap, never, never, None, valid, **OPTIONS)
    assert (advantage[2] == 0).all()
    torch.testing.assert_close(advantage[1], reward[1] + 0.99 * value[2] - value[1])


def test_without_last_values_the_next_stored_value_is_taken():
    inputs = rollout(6, 3, 2, 0.5)
    ours = gae(*inputs[:5], **OPTIONS)
    exact = ref.gae(*doubled(*inputs[:5]), None, None, **OPTIONS)
    torch.testing.assert_close(ours[0].double(), exact[0], rtol=1e-5, atol=1e-5)


def test_results_do_not_depend_on_the_number_of_threads():
    inputs, results = rollout(128, 300, 5), []
    for count in (1, 2):
        with threads(count):
            results.append(gae(*inputs, **OPTIONS)[0])
    assert torch.equal(*results)


def test_what_does_not_fit_is_refused():
    reward, *rest = rollout(4, 3, 2)
    with pytest.raises(ValueError, match=r"reward must be \[4, 3\]"):
        gae(reward.T, *rest, **OPTIONS)
