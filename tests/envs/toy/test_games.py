"""Exact gradients against autograd, agent by agent, on payoffs written out here once more."""

import itertools

import numpy as np
import pytest
import torch

from kpg_fast.envs.toy import make_game, names
from kpg_fast.envs.toy.games import MatrixGame, MeetUp, QuadraticGame, meet_up_payoff, softmax
from kpg_fast.errors import UsageError


def plain_payoff(game, agent, theta):
    """J_agent at theta [N, P] as a differentiable number, by the formula in its plainest form."""
    n = game.num_agents
    if isinstance(game, MeetUp):
        return -0.5 * sum((theta[i] - theta[j]).square().sum() for i in range(n) for j in range(i + 1, n))
    if isinstance(game, MatrixGame):
        policy = torch.softmax(theta, -1)
        return sum(
            game.payoffs[(agent, *joint)] * torch.prod(torch.stack([policy[i, a] for i, a in enumerate(joint)]))
            for joint in itertools.product(range(game.size), repeat=n)
        )
    jacobian, offset = torch.tensor(game.jacobian), torch.tensor(game.offset)
    own = theta[agent]
    between = sum(jacobian[agent, :, j] @ theta[j] for j in range(n) if j != agent)
    return 0.5 * own @ jacobian[agent, :, agent] @ own + own @ (between + offset[agent])


def general_quadratic(num_agents, size, seed):
    rng = np.random.default_rng(seed)
    jacobian = rng.standard_normal((num_agents, size, num_agents, size))
    for i in range(num_agents):
        jacobian[i, :, i] = (jacobian[i, :, i] + jacobian[i, :, i].T) / 2
    return QuadraticGame(jacobian, rng.standard_normal((num_agents, size)))


GAMES = {name: make_game(name) for name in names()} | {
    "meetup of five": MeetUp(5),
    "three players": MatrixGame(np.random.default_rng(0).normal(size=(3, 2, 2, 2))),
    "general-sum quadratic": general_quadratic(4, 3, 1),
}


@pytest.mark.parametrize("name", GAMES)
def test_gradient_is_the_payoffs_gradient_against_the_others(name):
    game = GAMES[name]
    rng = np.random.default_rng(7)
    theta, others = (rng.standard_normal((game.num_agents, game.size)) for _ in range(2))
    got = game.gradient(theta, others)
    for i in range(game.num_agents):
        own = torch.tensor(theta[i], requires_grad=True)
        joint = [own if j == i else torch.tensor(others[j]) for j in range(game.num_agents)]
        (expected,) = torch.autograd.grad(plain_payoff(game, i, torch.stack(joint)), own)
        np.testing.assert_allclose(got[i], expected.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in GAMES if n not in ("quadratic",)])
def test_payoff_is_what_the_formula_says(name):
    game = GAMES[name]
    theta = np.random.default_rng(3).standard_normal((game.num_agents, game.size))
    expected = [float(plain_payoff(game, i, torch.tensor(theta))) for i in range(game.num_agents)]
    np.testing.assert_allclose(game.payoff(theta), expected, rtol=1e-12)


def test_a_common_quadratic_payoff_has_everyones_gradient():
    game = make_game("quadratic", num_agents=3, size=2, game_seed=5)
    assert game.common_payoff
    theta = torch.tensor(np.random.default_rng(0).standard_normal((3, 2)), requires_grad=True)
    flat, matrix = theta.flatten(), torch.tensor(game.matrix)
    joint = 0.5 * flat @ matrix @ flat + flat @ torch.tensor(game.offset.ravel())
    (expected,) = torch.autograd.grad(joint, theta)
    at = theta.detach().numpy()
    np.testing.assert_allclose(game.gradient(at, at), expected.numpy(), rtol=1e-12)
    np.testing.assert_allclose(game.payoff(at), joint.item(), rtol=1e-12)
    best = game.equilibrium()
    np.testing.assert_allclose(game.gradient(best, best), 0, atol=1e-12)
    assert game.distance(best) == 0


def test_distances_are_zero_where_the_goal_is():
    assert MeetUp(3).distance(np.ones((3, 2))) == 0
    sure = np.array([[50.0, 0.0], [50.0, 0.0]])
    assert make_game("stag_hunt").distance(sure) == pytest.approx(0, abs=1e-12)
    assert make_game("stag_hunt").distance(sure[:, ::-1]) == pytest.approx(1)


def test_known_payoffs():
    assert make_game("climbing").payoffs[0, 0, 0] == 11
    assert make_game("climbing").payoffs[1, 1, 0] == -30
    assert make_game("penalty", punishment=-20.0).payoffs[0, 2, 0] == -20
    hunt = make_game("stag_hunt")
    assert hunt.payoffs[:, 0, 1].tolist() == [0, 3]
    assert hunt.payoffs[:, 1, 0].tolist() == [3, 0]


def test_meet_up_payoff_of_a_batch():
    places = np.random.default_rng(0).standard_normal((5, 3, 2))
    np.testing.assert_allclose(meet_up_payoff(places), [MeetUp(3).payoff(p)[0] for p in places])


def test_softmax_stands_large_logits():
    np.testing.assert_allclose(softmax(np.array([1e4, 0.0])), [1, 0])


def test_what_cannot_be_is_said():
    with pytest.raises(UsageError, match="did you mean climbing"):
        make_game("climbin")
    with pytest.raises(UsageError, match="did you mean num_agents"):
        make_game("meetup", num_agent=3)
    with pytest.raises(UsageError, match="no options"):
        make_game("climbing", num_agents=3)
    with pytest.raises(UsageError, match="at least 2"):
        make_game("meetup", num_agents=1)
    with pytest.raises(UsageError, match="not symmetric"):
        QuadraticGame(np.arange(16.0).reshape(2, 2, 2, 2), np.zeros((2, 2)))
