"""Toy games behind the interface of all environments."""

import numpy as np
import pytest

from kpg_fast.envs import StepArrays, make
from kpg_fast.envs.toy import names
from kpg_fast.errors import UsageError


def play(env, action):
    out = StepArrays.empty(env.spec)
    env.reset(out)
    for array in (out.obs, out.state, out.reward, out.last_obs, out.last_state):
        array[:] = np.nan
    env.step(action, out)
    return out


@pytest.mark.parametrize("name", names())
def test_everything_is_written(name):
    env = make(f"toy/{name}", num_envs=3, seed=1)
    spec = env.spec
    shape = (3, spec.num_agents, spec.num_actions) if spec.continuous else (3, spec.num_agents)
    out = play(env, np.zeros(shape, np.float32 if spec.continuous else np.int32))
    for array in (out.obs, out.state, out.last_obs, out.last_state):
        assert (array == 1).all()
    assert np.isfinite(out.reward).all()
    assert out.terminated.all()
    assert out.valid.all()
    assert not out.truncated.any()
    env.load_state_dict(env.state_dict())
    env.close()


def test_matrix_games_pay_the_team():
    actions = np.array([[0, 0], [0, 1], [1, 1], [2, 1]], np.int32)
    out = play(make("toy/climbing", 4), actions)
    assert out.reward.tolist() == [11, -30, 7, 0]
    assert out.won.tolist() == [True, False, False, False]
    hunt = play(make("toy/stag_hunt", 3), np.array([[0, 0], [0, 1], [1, 1]], np.int32))
    assert hunt.reward.tolist() == [4, 1.5, 3]


def test_continuous_games_pay_their_payoff():
    env = make("toy/meetup", 2, num_agents=3)
    places = np.array([[[0, 0], [1, 0], [0, 2]], [[0.5, 0.5]] * 3], np.float32)
    out = play(env, places)
    np.testing.assert_allclose(out.reward, [-0.5 * (1 + 4 + 5), 0])
    assert out.won.tolist() == [False, True]
    far = play(env, places * 100)
    np.testing.assert_allclose(far.reward[0], -0.5 * (9 + 9 + 18))  # actions are clipped to the bounds

    game = make("toy/quadratic", 1, game_seed=2)
    from kpg_fast.envs.toy import make_game

    best = make_game("quadratic", game_seed=2).equilibrium()[None].astype(np.float32)
    assert play(game, best).won.all()
    assert not play(game, best + 1).won.any()


def test_bad_actions_and_options_are_refused():
    env = make("toy/climbing", 1)
    with pytest.raises(UsageError, match="0 to 2"):
        play(env, np.array([[0, 3]], np.int32))
    with pytest.raises(UsageError, match="finite"):
        play(make("toy/meetup", 1), np.full((1, 2, 2), np.nan, np.float32))
    with pytest.raises(UsageError, match="at least 1"):
        make("toy/climbing", 0)
    with pytest.raises(UsageError, match="cpu"):
        make("toy/climbing", 1, device="cuda")
    with pytest.raises(UsageError, match="keeps no state"):
        env.load_state_dict({"t": np.zeros(1)})
