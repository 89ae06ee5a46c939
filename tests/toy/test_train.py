"""The theory of the recursion, held on games with exact gradients and plain gradient steps."""

import itertools
import json

import numpy as np
import pytest

from kpg_fast.envs.toy.games import MatrixGame, MeetUp, QuadraticGame, meet_up_factor
from kpg_fast.errors import UsageError
from kpg_fast.toy.train import ToyOptions, closed_form, follow, k_level_step, regimes_of, run, train_toy


def random_quadratic(rng, num_agents, size):
    jacobian = rng.standard_normal((num_agents, size, num_agents, size)) * rng.uniform(0.2, 2)
    for i in range(num_agents):
        jacobian[i, :, i] = (jacobian[i, :, i] + jacobian[i, :, i].T) / 2
    return QuadraticGame(jacobian, rng.standard_normal((num_agents, size)))


def test_factors_of_the_two_agent_game():
    factors = [meet_up_factor(2, 0.98, k) for k in range(1, 7)]
    np.testing.assert_allclose(factors, [-0.960, 0.961, -0.922, 0.923, -0.885, 0.887], atol=5e-4)
    assert meet_up_factor(2, 0.98, 2000) == pytest.approx(0.0101, abs=5e-5)


@pytest.mark.parametrize(("num_agents", "lr"), [(2, 0.98), (3, 0.5), (5, 0.1), (7, 0.6)])
@pytest.mark.parametrize("levels", [1, 2, 3, 6])
def test_meet_up_follows_its_closed_form(num_agents, lr, levels):
    game = MeetUp(num_agents)
    theta = game.start(np.random.default_rng(num_agents))
    after, deltas = k_level_step(game, theta, levels, lr)
    about_mean = theta - theta.mean(0)
    np.testing.assert_allclose(after - after.mean(0), meet_up_factor(num_agents, lr, levels) * about_mean, atol=1e-12)
    np.testing.assert_allclose(after.mean(0), theta.mean(0), atol=1e-12)
    np.testing.assert_allclose(deltas[1:], lr * deltas[:-1], rtol=1e-9)


def test_regimes_show_what_their_titles_say():
    (helps, paths), (parity, parity_paths) = run(ToyOptions(levels=6, steps=5))
    last = [path.distance[-1] for path in paths]
    assert all(after < before for before, after in itertools.pairwise(last))
    signs = [np.sign(meet_up_factor(2, parity.lr, path.levels)) for path in parity_paths]
    assert signs == [-1, 1, -1, 1, -1, 1]
    for regime, of_regime in ((helps, paths), (parity, parity_paths)):
        for path in of_regime:
            np.testing.assert_allclose(path.distance, closed_form(regime, path), rtol=1e-6, atol=1e-13)
    # over-stepping swaps the agents' sides at every update, under-stepping never does
    for path in parity_paths:
        side = path.theta[:, 0, 0] - path.theta[:, 1, 0]
        assert (np.sign(side[1:] / side[:-1]) == (-1 if path.levels % 2 else 1)).all()


def test_movement_between_levels_stays_under_its_bound():
    """Delta_k <= eta (eta L)^(k-1) (n-1)^(k-1) sum |g_i| with L = the largest block of the Jacobian."""
    rng = np.random.default_rng(0)
    tightest = 0.0
    for _ in range(300):
        n, size, lr = int(rng.integers(2, 6)), int(rng.integers(1, 4)), rng.uniform(0.01, 1.0)
        game = random_quadratic(rng, n, size)
        theta = rng.standard_normal((n, size))
        blocks = [np.linalg.norm(game.jacobian[i, :, j], 2) for i in range(n) for j in range(n) if i != j]
        lipschitz, total = max(blocks), np.linalg.norm(game.gradient(theta, theta), axis=1).sum()
        _, deltas = k_level_step(game, theta, 6, lr)
        bound = lr * (lr * lipschitz * (n - 1)) ** np.arange(6) * total
        assert (deltas <= bound * (1 + 1e-9)).all()
        tightest = max(tightest, (deltas / bound)[1:].max())
    assert tightest > 0.5  # a bound that is never neared would hold for any update


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [1, 2, 3, 7])
def test_the_update_is_a_preconditioned_gradient(seed, levels):
    """theta^(K) - theta = eta sum_{m<K} (eta BD)^m g."""
    rng = np.random.default_rng(seed)
    game, lr = random_quadratic(rng, 4, 2), 0.2
    theta = rng.standard_normal((4, 2))
    gradient = game.gradient(theta, theta).ravel()
    powers = [np.linalg.matrix_power(lr * game.off_diagonal, m) for m in range(levels)]
    after, _ = k_level_step(game, theta, levels, lr)
    np.testing.assert_allclose((after - theta).ravel(), lr * sum(powers) @ gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_the_limit_and_what_is_left_of_the_way_there(levels):
    """K -> inf: eta (I - eta BD)^-1 g; theta^(K) - theta^(inf) = (eta BD)^K (theta - theta^(inf))."""
    rng = np.random.default_rng(9)
    game = random_quadratic(rng, 3, 2)
    between = game.off_diagonal
    lr = 0.5 / np.abs(np.linalg.eigvals(between)).max()
    theta = rng.standard_normal((3, 2))
    step = np.linalg.solve(np.eye(6) - lr * between, lr * game.gradient(theta, theta).ravel())
    limit = theta.ravel() + step
    np.testing.assert_allclose(k_level_step(game, theta, 200, lr)[0].ravel(), limit, rtol=1e-10)
    left = np.linalg.matrix_power(lr * between, levels) @ (theta.ravel() - limit)
    after = k_level_step(game, theta, levels, lr)[0].ravel()
    np.testing.assert_allclose(after - limit, left, rtol=1e-9, atol=1e-12)


def test_odd_levels_overstep_and_even_ones_understep():
    """Where eta BD has a negative eigenvalue, the way along its eigenvector alternates about the limit."""
    coupled = np.array([[0.0, -0.9], [-0.9, 0.0]]).reshape(2, 1, 2, 1)
    game = QuadraticGame(coupled - np.eye(2).reshape(2, 1, 2, 1), np.zeros((2, 1)))
    theta = np.array([[1.0], [1.0]])  # eigenvector of BD with eigenvalue -0.9
    lr, gradient = 1.0, game.gradient(theta, theta)[0, 0]
    limit = lr * gradient / (1 + 0.9 * lr)
    moved = [k_level_step(game, theta, k, lr)[0][0, 0] - 1 for k in range(1, 7)]
    overstepped = [abs(m) > abs(limit) for m in moved]
    assert overstepped == [True, False, True, False, True, False]


def test_two_levels_are_written_out_by_hand():
    """theta^(2) of a matrix game, agent by agent: its policy gradient against the other's first step."""
    game = MatrixGame(np.random.default_rng(2).normal(size=(2, 3, 3)))
    theta, lr = np.random.default_rng(3).normal(size=(2, 3)), 0.7
    first = theta + lr * game.gradient(theta, theta)
    rows = [np.stack([theta[0], first[1]]), np.stack([first[0], theta[1]])]
    expected = np.stack([theta[i] + lr * game.gradient(rows[i], rows[i])[i] for i in range(2)])
    np.testing.assert_allclose(k_level_step(game, theta, 2, lr)[0], expected, rtol=1e-12)


def test_a_run_is_kept_and_drawn(tmp_path):
    result = train_toy(ToyOptions(levels=2, steps=3), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 2 * 4
    for row in rows:
        assert row["distance"] == pytest.approx(row["closed_form"], rel=1e-6)
    assert result["distance/2"] == rows[7]["distance"]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["levels"] == 2
    assert config["provenance"]["commit"]
    assert (tmp_path / "run" / "paths.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "run" / "paths.svg").read_text()
    with pytest.raises(UsageError, match="exists"):
        train_toy(ToyOptions(levels=2, steps=3), tmp_path / "run")


def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kpg_fast.toy.plot.draw", fail)
    with pytest.raises(UsageError, match="No space left"):
        train_toy(ToyOptions(levels=2, steps=3), tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("env", ["toy/stag_hunt", "toy/quadratic", "toy/penalty"])
def test_every_kind_of_game_is_drawn(env, tmp_path):
    train_toy(ToyOptions(env=env, levels=7, steps=2), tmp_path / "run")
    assert (tmp_path / "run" / "paths.svg").exists()


def test_matrix_games_improve():
    game = regimes_of(ToyOptions(env="toy/stag_hunt"))[0].game
    path = follow(game, np.array([[2.0, 0.0], [2.0, 0.0]]), 2, 0.5, 100)
    assert path.distance[-1] < 0.1 < path.distance[0]


def test_bad_options_are_refused(tmp_path):
    for options, message in (
        (ToyOptions(levels=0), "levels = 0"),
        (ToyOptions(steps=0), "steps = 0"),
        (ToyOptions(lr=-1.0), "above 0"),
        (ToyOptions(env="toy/meetpu"), "did you mean meetup"),
        (ToyOptions(num_agents=1), "at least 2"),
        (ToyOptions(env="toy/climbing", num_agents=3), "no options"),
    ):
        with pytest.raises(UsageError, match=message):
            train_toy(options, tmp_path / "run")
    assert not (tmp_path / "run").exists()
