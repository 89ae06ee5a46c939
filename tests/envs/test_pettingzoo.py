import numpy as np
import pytest

pytest.importorskip("pettingzoo", reason="needs the extra pettingzoo")

from pettingzoo.test import parallel_api_test

from kpg_fast.envs.pettingzoo import SmaxParallelEnv
from kpg_fast.errors import UsageError


@pytest.mark.parametrize(
    ("scenario", "options"), [("3m", {}), ("2s3z_vs_9h", {"self_play": True}), ("3m", {"action_type": "continuous"})]
)
def test_parallel_api(scenario, options):
    parallel_api_test(SmaxParallelEnv(scenario, **options), num_cycles=150)


def play(env: SmaxParallelEnv, seed: int) -> tuple[list[float], dict]:
    observations, _ = env.reset(seed=seed)
    rng, rewards, infos = np.random.default_rng(0), [], {}
    while env.agents:
        actions = {name: rng.choice(np.flatnonzero(o["action_mask"])) for name, o in observations.items()}
        observations, reward, _, _, infos = env.step(actions)
        rewards.append(reward["ally_0"])
    return rewards, infos


def test_seed_chooses_the_episode():
    env = SmaxParallelEnv("3m")
    first, infos = play(env, 3)
    assert play(env, 3)[0] == first
    assert play(env, 4)[0] != first
    assert set(infos["ally_0"]) == {"won"}


def test_last_observation_is_of_the_episode_that_ended():
    env = SmaxParallelEnv("3m", max_steps=1)
    first, _ = env.reset(seed=0)
    began = env.state()
    last, _, terminated, truncated, _ = env.step(dict.fromkeys(env.agents, 4))
    assert truncated["ally_0"]
    assert not terminated["ally_0"]
    assert not env.agents
    # a unit that stopped is where it was; a new episode would have placed it elsewhere
    np.testing.assert_allclose(last["ally_0"]["observation"][-9:-7], first["ally_0"]["observation"][-9:-7], atol=1e-3)
    np.testing.assert_allclose(env.state()[1:3], began[1:3], atol=1e-2)


def test_last_mask_and_picture_are_of_the_episode_that_ended():
    env = SmaxParallelEnv("3m", render_mode="rgb_array")
    observations, _ = env.reset(seed=0)
    while env.agents:
        names, before = list(env.agents), env.render()
        observations, *_ = env.step({n: observations[n]["action_mask"].nonzero()[0][-1] for n in names})
    for name in names:  # dead: nothing but stop; alive with nobody left to shoot at: no attack
        mask = observations[name]["action_mask"]
        assert not mask[5:].any()
        assert mask[4]
    assert (env.render() != before).mean() < 0.1  # the last blow, not a new start


def test_render_is_a_picture_of_the_game():
    env = SmaxParallelEnv("2s3z", render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (512, 512, 3)
    assert frame.dtype == np.uint8
    left, right = frame[:, :256].astype(int), frame[:, 256:].astype(int)
    assert (left[..., 2] - left[..., 0]).max() > 100  # blue allies begin on the left
    assert (right[..., 0] - right[..., 2]).max() > 100  # red enemies on the right
    assert SmaxParallelEnv("2s3z").render() is None


def test_steps_without_a_game_ask_for_a_reset():
    env = SmaxParallelEnv("3m", max_steps=1)
    for actions in ({}, dict.fromkeys(env.possible_agents, 4)):
        with pytest.raises(UsageError, match="no game is under way; reset first"):
            env.step(actions)
    env.reset(seed=0)
    env.step(dict.fromkeys(env.agents, 4))
    for actions in ({}, dict.fromkeys(env.possible_agents, 4)):
        with pytest.raises(UsageError, match="no game is under way; reset first"):
            env.step(actions)
    env.reset()
    env.step(dict.fromkeys(env.agents, 4))


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_actions_that_are_none_are_told(kind):
    env = SmaxParallelEnv("3m", action_type=kind)
    env.reset(seed=0)
    good = {name: env.action_space(name).sample() for name in env.agents}
    with pytest.raises(UsageError, match="no action of ally_1, ally_2"):
        env.step({"ally_0": good["ally_0"]})
    shape = r"\(\)" if kind == "discrete" else r"\(4,\)"
    with pytest.raises(UsageError, match=rf"the action of ally_1 must have shape {shape}, got \(2,\)"):
        env.step(good | {"ally_1": [1, 2]})
    for wrong in [99, -1, 2**31, 1.5, None] if kind == "discrete" else [[0, 0, np.nan, 0]]:
        with pytest.raises(UsageError, match="action"):
            env.step(good | {"ally_1": wrong})
    env.step(good)


@pytest.mark.parametrize("mode", ["human", "rgb", 3, ""])
def test_unknown_render_modes_are_refused(mode):
    with pytest.raises(UsageError, match=f"render_mode must be 'rgb_array' or None, got {mode!r}"):
        SmaxParallelEnv("3m", render_mode=mode)


@pytest.mark.parametrize("seed", [-1, 1.5, 2**64])
def test_seeds_are_those_of_make(seed):
    with pytest.raises(UsageError, match="seed must be"):
        SmaxParallelEnv("3m").reset(seed=seed)
