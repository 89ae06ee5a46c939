"""The batch: limits, auto-reset, padding, refusal of bad input, and results that depend on nothing but the seed."""

import dataclasses

import numpy as np
import pytest

from kpg_fast.envs import StepArrays, make
from kpg_fast.errors import UsageError


def play(env, steps, seed=0, out=None):
    """Random available actions for ``steps`` steps; returns every array of every step, stacked."""
    out = out or StepArrays.empty(env.spec)
    env.reset(out)
    rng = np.random.default_rng(seed)
    rows = [{f.name: getattr(out, f.name).copy() for f in dataclasses.fields(out)}]
    for _ in range(steps):
        weight = rng.random((steps, *out.avail_actions.shape[1:]), np.float32)[: env.spec.num_envs]
        env.step((weight * out.avail_actions).argmax(-1).astype(np.int32), out)
        rows.append({f.name: getattr(out, f.name).copy() for f in dataclasses.fields(out)})
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def slice_envs(result, part):
    return {name: value[:, part] for name, value in result.items()}


def assert_same(a, b):
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("name", ["3m", "smacv2_5_units"])
def test_threads_and_batch_do_not_matter(name):
    whole = play(make(f"smax/{name}", 12, seed=3, threads=1), 60)
    assert_same(whole, play(make(f"smax/{name}", 12, seed=3, threads=2), 60))
    first = play(make(f"smax/{name}", 5, seed=3, threads=2), 60)
    assert_same(slice_envs(whole, slice(0, 5)), first)
    other = play(make(f"smax/{name}", 12, seed=4), 60)
    assert not np.array_equal(other["obs"], whole["obs"])


def test_first_env_plays_a_part_of_a_batch():
    stop = np.full((6, 3), 4, np.int32)
    whole, part = make("smax/3m", 6, seed=1), make("smax/3m", 2, seed=1, first_env=4)
    out, part_out = StepArrays.empty(whole.spec), StepArrays.empty(part.spec)
    whole.reset(out)
    part.reset(part_out)
    for _ in range(40):
        whole.step(stop, out)
        part.step(stop[4:], part_out)
        np.testing.assert_array_equal(out.state[4:], part_out.state)


def test_resume_is_exact():
    env = make("smax/2s3z", 4, seed=5)
    play(env, 30)
    saved = {name: value.copy() for name, value in env.state_dict().items()}
    stop = np.full((4, 5), 1, np.int32)
    first, second = StepArrays.empty(env.spec), StepArrays.empty(env.spec)
    for _ in range(20):
        env.step(stop, first)
    again = make("smax/2s3z", 4, seed=99)
    again.load_state_dict(saved)
    for _ in range(20):
        again.step(stop, second)
    for field in dataclasses.fields(first):
        if not field.name.startswith("last"):
            np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))
    with pytest.raises(UsageError, match="does not fit"):
        make("smax/2s3z", 5).load_state_dict(saved)
    with pytest.raises(UsageError, match="another scenario"):
        make("smax/2s3z", 4, flavour="jaxmarl").load_state_dict(saved)


@pytest.mark.parametrize(("flavour", "length"), [("default", 3), ("jaxmarl", 4)])
def test_time_limit(flavour, length):
    env = make("smax/3m", 2, flavour=flavour, max_steps=3, enemy_shoots=False)
    out = StepArrays.empty(env.spec)
    env.reset(out)
    stop = np.full((2, 3), 4, np.int32)
    assert env.spec.max_episode_steps == length
    for step in range(1, 3 * length + 1):
        before = out.obs.copy()
        env.step(stop, out)
        ended = step % length == 0
        assert (out.truncated == (ended and flavour == "default")).all()
        assert (out.terminated == (ended and flavour == "jaxmarl")).all()
        assert not out.won.any()
        assert out.valid.all()
        if ended:  # the last observation continues the old episode, obs begins a new one
            own_position = np.s_[:, :, -9:-7]
            assert np.abs(out.last_obs - before)[own_position].max() < 0.01
            assert np.abs(out.obs - before)[own_position].max() > 0.01
            assert out.alive.all()


def test_without_auto_reset_a_game_stays_as_it_ended():
    resets, stays = (play(make("smax/3m", 1, seed=5, auto_reset=choice), 60) for choice in (True, False))
    end = resets["terminated"][:, 0].argmax()
    assert end > 0
    assert_same(*({name: value[:end] for name, value in result.items()} for result in (resets, stays)))
    np.testing.assert_array_equal(stays["obs"][end], resets["last_obs"][end])
    np.testing.assert_array_equal(stays["state"][end], resets["last_state"][end])
    assert not np.array_equal(stays["state"][end], resets["state"][end])
    assert stays["terminated"][end:].all()


def test_everything_is_written():
    env = make("smax/2s3z", 3)
    out = StepArrays.empty(env.spec)
    for name in ("obs", "state", "reward"):
        getattr(out, name)[...] = np.nan
    out.avail_actions[...] = True
    env.reset(out)
    env.step(np.full((3, 5), 1, np.int32), out)
    assert np.isfinite(out.obs).all()
    assert np.isfinite(out.state).all()
    assert np.isfinite(out.reward).all()
    assert not out.avail_actions[:, :, 5:].any()  # nobody is in range after one step


def test_bad_input():
    with pytest.raises(UsageError, match="num_envs"):
        make("smax/3m", 0)
    with pytest.raises(UsageError, match="walls_cause_death"):
        make("smax/3m", 1, walls_kill=True)
    with pytest.raises(UsageError, match="unit_list or conic"):
        make("smax/3m", 1, observation="round")
    for wrong in ({"max_steps": "abc"}, {"max_steps": 0}, {"max_steps": 2**31}, {"threads": -1}, {"first_env": 0.5}):
        with pytest.raises(UsageError, match="whole number"):
            make("smax/3m", 1, **wrong)
    with pytest.raises(UsageError, match="enemy_shoots must be true or false, got 'yes'"):
        make("smax/3m", 1, enemy_shoots="yes")
    with pytest.raises(UsageError, match="cpu"):
        make("smax/3m", 1, device="tpu")
    env = make("smax/3m", 2)
    out = StepArrays.empty(env.spec)
    with pytest.raises(UsageError, match="action"):
        env.step(np.zeros((2, 4), np.int32), out)
    out.obs = np.zeros((2, 6, env.spec.obs_size), np.float32)[:, ::2]
    with pytest.raises(UsageError, match=r"out\.obs"):
        env.reset(out)
    with pytest.raises(UsageError, match="health"):
        env.set_state(heath=np.zeros((2, 6)))


@pytest.mark.parametrize("value", [99, 8, -1, 2**31, -(2**31), 2**64 - 1])
def test_an_action_that_is_none_is_refused(value):
    env = make("smax/3m", 2, first_env=4)
    out = StepArrays.empty(env.spec)
    env.reset(out)
    action = np.full((2, 3), 7, np.uint64 if value >= 2**63 else np.int64)  # unavailable, but an action
    env.step(action, out)
    before = env.state_dict()
    action[1, 2] = value
    for step in (env.step, env.step_async):
        with pytest.raises(UsageError, match=f"action of agent 2 in environment 5 is {value}; it must be 0 to 7"):
            step(action, out)
    assert_same(before, env.state_dict())


@pytest.mark.parametrize("dtype", [np.float32, np.bool_, object])
def test_actions_to_choose_from_are_whole_numbers(dtype):
    env = make("smax/3m", 2)
    out = StepArrays.empty(env.spec)
    env.reset(out)
    with pytest.raises(UsageError, match=f"actions must be whole numbers, got {np.dtype(dtype)}"):
        env.step(np.ones((2, 3), dtype), out)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_continuous_actions_must_be_finite(value):
    env = make("smax/3m", 2, action_type="continuous")
    out = StepArrays.empty(env.spec)
    env.reset(out)
    action = np.full((2, 3, 4), 0.5)
    action[0, 1] = [-0.25, 1.25, 1e30, -3]  # outside [0, 1] JaxMARL's rules say what happens
    env.step(action, out)
    action[1, 0, 2] = value
    with pytest.raises(UsageError, match=r"action 2 of agent 0 in environment 1 is .*; it must be finite"):
        env.step(action, out)
    with pytest.raises(UsageError, match="actions must be numbers, got object"):
        env.step(action.astype(object), out)
