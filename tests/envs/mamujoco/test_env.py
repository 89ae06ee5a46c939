"""Episodes, their ends, and what an environment keeps."""

from dataclasses import fields

import numpy as np
import pytest

from kpg_fast.envs import StepArrays
from kpg_fast.envs.mamujoco import in_groups, make_env, make_groups, step_buffers
from kpg_fast.envs.mamujoco.kernels import find_faults
from kpg_fast.envs.mamujoco.physics import fault_warnings
from kpg_fast.errors import UsageError


def random_action(spec, random):
    shape = (spec.num_envs, spec.num_agents, spec.num_actions)
    return random.uniform(spec.action_low, spec.action_high, shape).astype(np.float32)


def play(env, out, steps, seed=0, action_envs=slice(None), spec=None):
    """Take random steps; returns everything every step wrote (last observations only where an episode ended)."""
    random, history = np.random.default_rng(seed), []
    for _ in range(steps):
        out.last_obs[...] = out.last_state[...] = 0
        env.step(random_action(spec or env.spec, random)[action_envs], out)
        history.append({name: array.copy() for name, array in vars(out).items()})
    return history


def assert_same(one, other):
    for step, (left, right) in enumerate(zip(one, other, strict=True)):
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=f"{name} at step {step}")


def test_unequal_agents_are_padded_and_masked(start):
    env, out = start("Humanoid-9|8")
    spec = env.spec
    assert spec.continuous
    assert (spec.action_high - spec.action_low > 0).sum(axis=1).tolist() == [9, 8]
    np.testing.assert_array_equal(spec.action_high[0], np.full(9, 0.4, np.float32))
    assert spec.action_low[1, 8] == spec.action_high[1, 8] == 0
    assert not out.obs[:, 1, 170:].any()
    action = np.zeros((3, 2, 9), np.float32)
    action[:, 1, 8] = np.nan  # where there is no actuator
    env.step(action, out)
    assert out.valid.all()


def test_the_time_limit_truncates_and_keeps_the_last_observation(start):
    env, out = start("HalfCheetah-2x3", max_episode_steps=5)
    history = play(env, out, 11)
    assert [step["truncated"].all() for step in history] == [step in (4, 9) for step in range(11)]
    assert not any(step["terminated"].any() for step in history)
    longer, free = start("HalfCheetah-2x3")
    unbroken = play(longer, free, 5)
    np.testing.assert_array_equal(history[4]["last_obs"], unbroken[4]["obs"])
    np.testing.assert_array_equal(history[4]["last_state"], unbroken[4]["state"])
    assert not np.array_equal(history[4]["obs"], unbroken[4]["obs"])


def test_a_fall_terminates_and_is_no_truncation(start):
    env, out = start("Hopper-3x1")
    history = play(env, out, 100)
    assert sum(step["terminated"].sum() for step in history) > 3
    assert not any(step["truncated"].any() for step in history)
    for step in history:
        for index in np.flatnonzero(step["terminated"]):
            assert not np.array_equal(step["last_obs"][index], step["obs"][index])


def test_episodes_do_not_depend_on_batch_threads_or_way(start):
    env, out = start("Ant-4x2", 4, threads=1)
    whole = play(env, out, 40)
    for options in ({"threads": 3}, {"contact_forces": "python"}):
        other, again = start("Ant-4x2", 4, **options)
        assert_same(whole, play(other, again, 40))
    half, part = start("Ant-4x2", 2, first_env=2)
    history = play(half, part, 40, action_envs=slice(2, 4), spec=env.spec)
    assert_same([{name: array[2:] for name, array in step.items()} for step in whole], history)


def test_seeds_and_episodes_differ(start):
    starts = [start("Reacher-2x1", 2, seed=seed)[1].state.copy() for seed in (0, 1)]
    assert not np.array_equal(*starts)
    assert not np.array_equal(starts[0][0], starts[0][1])
    env, out = start("Reacher-2x1", 2)
    np.testing.assert_array_equal(out.state, starts[0])
    env.reset(out)
    assert not np.array_equal(out.state, starts[0])


@pytest.mark.parametrize("name", ["Humanoid-9|8", "Reacher-2x1", "CoupledHalfCheetah-1p1"])
def test_resume_is_exact(start, name):
    env, out = start(name)
    play(env, out, 30)
    state = env.state_dict()
    expected = play(env, out, 60, seed=1)
    resumed, again = start(name, seed=5)
    play(resumed, again, 7, seed=2)
    resumed.load_state_dict(state)
    resumed.observe(again)
    before = StepArrays.empty(env.spec)
    env.load_state_dict(state)
    env.observe(before)
    np.testing.assert_array_equal(again.obs, before.obs)
    assert_same(expected, play(resumed, again, 60, seed=1))


def test_a_foreign_state_is_refused(start):
    env, _ = start("HalfCheetah-2x3")
    state = env.state_dict()
    with pytest.raises(UsageError, match="shape"):
        make_env("HalfCheetah-2x3", 2).load_state_dict(state)
    with pytest.raises(UsageError, match="not a state"):
        env.load_state_dict({"rows": state["rows"]})
    with pytest.raises(UsageError, match=r"MuJoCo 3\.5\.0"):
        env.load_state_dict({**state, "mujoco_version": np.array([3, 5, 0])})


@pytest.mark.parametrize("name", ["HalfCheetah-2x3", "Ant-4x2"])
def test_an_unstable_simulation_never_becomes_data(start, caplog, name):
    env, out = start(name)
    play(env, out, 3)
    qpos, qvel = env.get_state()
    qvel[1] = 1e9
    env.set_state(qpos, qvel, out)
    env.step(np.zeros((3, env.spec.num_agents, env.spec.num_actions), np.float32), out)
    assert out.valid.tolist() == [True, False, True]
    assert out.truncated.tolist() == [False, True, False]
    assert not out.terminated.any()
    assert out.reward[1] == 0
    assert not out.last_obs[1].any()
    for array in (out.obs, out.state, out.reward, out.last_obs, out.last_state):
        assert np.isfinite(array).all()
    assert np.abs(out.obs[1]).max() < 10
    assert env.faults == 1
    assert "environment 1" in caplog.text
    history = play(env, out, 20)
    assert all(step["valid"].all() for step in history)


@pytest.mark.parametrize("value", [1e30, 1e200])
def test_a_reward_that_float32_cannot_hold_never_becomes_data(start, caplog, value):
    env, out = start("HalfCheetah-2x3")
    action = np.zeros((3, 2, 3))
    action[1, 0, 0] = value  # the motor's torque is clipped, the cost of the action is not
    env.step(action, out)
    assert out.valid.tolist() == [True, False, True]
    assert out.truncated.tolist() == [False, True, False]
    assert out.reward[1] == env.exact_reward()[1] == 0
    assert not out.last_obs[1].any()
    assert env.faults == 1
    assert "is more than float32 holds" in caplog.text
    action[1, 0, 0] = 1e15  # costs 1e29, which is a number
    env.step(action, out)
    assert out.valid.all()
    assert env.faults == 1


def test_a_raising_simulation_never_becomes_data(start, monkeypatch):
    env, out = start("HalfCheetah-2x3")
    real = env._physics.step

    def raising(substeps):
        real(substeps)
        return np.array([2], np.int32)

    monkeypatch.setattr(env._physics, "step", raising)
    monkeypatch.setattr(env._physics, "error", lambda simulation: "out of memory")
    env.step(np.zeros((3, 2, 3), np.float32), out)
    assert out.valid.tolist() == [True, True, False]
    assert env.faults == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_actions_must_be_finite(start, value):
    env, out = start("HalfCheetah-2x3")
    action = np.zeros((3, 2, 3), np.float32)
    action[2, 1, 0] = value
    with pytest.raises(UsageError, match="action 0 of agent 1 in environment 2"):
        env.step(action, out)
    with pytest.raises(UsageError, match="shape"):
        env.step(action[:, :1], out)
    env.step(np.zeros_like(action), out)


def test_async_steps_equal_steps(start):
    env, out = start("Walker2d-2x3", 4)
    expected = play(env, out, 50)
    groups = make_groups("Walker2d-2x3", 4, 0, groups=2)
    arrays = [step_buffers(group.spec, 1)[0] for group in groups]
    for group, part in zip(groups, arrays, strict=True):
        group.reset(part)
    random, history = np.random.default_rng(0), []
    for _ in range(50):
        action = random_action(env.spec, random)
        for index, (group, part) in enumerate(zip(groups, arrays, strict=True)):
            part.last_obs[...] = part.last_state[...] = 0
            group.step_async(action[2 * index : 2 * index + 2], part)
        action[...] = np.nan  # taken already
        for group in groups:
            group.step_wait()
        history.append({name: np.concatenate([vars(part)[name] for part in arrays]) for name in vars(out)})
    assert_same(expected, history)
    for group in groups:
        group.close()


def test_calls_out_of_order_are_told(start):
    env = make_env("HalfCheetah-2x3", 1)
    out, action = StepArrays.empty(env.spec), np.zeros((1, 2, 3), np.float32)
    with pytest.raises(UsageError, match="reset first"):
        env.step(action, out)
    env.reset(out)
    with pytest.raises(UsageError, match="without step_async"):
        env.step_wait()
    env.step_async(action, out)
    with pytest.raises(UsageError, match="under way"):
        env.step(action, out)
    env.step_wait()
    env.close()
    env.close()
    with pytest.raises(UsageError, match="closed"):
        env.step(action, out)


def test_groups_must_divide_the_batch():
    with pytest.raises(UsageError, match="cannot be split"):
        make_groups("HalfCheetah-2x3", 5, groups=2)


def test_buffers_are_pinned_where_cuda_is(start, monkeypatch):
    env, _ = start("HalfCheetah-2x3")
    pinned = []

    def pin(tensor):
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.Tensor.pin_memory", pin)
    first, second = step_buffers(env.spec)
    env.step(np.zeros((3, 2, 3), np.float32), first)
    assert first.valid.all()
    assert not second.valid.any()
    memory = {tensor.data_ptr() for tensor in pinned}
    assert {array.ctypes.data for arrays in (first, second) for array in vars(arrays).values()} == memory


def test_harl_mode_standardises_state_and_one_hot(start):
    env, out = start("Humanoid-17x1", observation="harl")
    _, state = start("Humanoid-17x1")[0].exact_observation()
    assert env.spec.obs_size == state.shape[1] + 17
    joined = np.concatenate([np.repeat(state[:, None], 17, 1), np.tile(np.eye(17), (3, 1, 1))], axis=2)
    expected = (joined - joined.mean(2, keepdims=True)) / joined.std(2, keepdims=True)
    np.testing.assert_allclose(out.obs, expected, rtol=1e-5, atol=1e-6)
    centred = state - state.mean(1, keepdims=True)
    np.testing.assert_allclose(out.state, centred / state.std(1, keepdims=True), rtol=1e-5, atol=1e-6)


def test_facts_name_what_changes_a_result(start):
    facts = start("Ant-4x2", observation="facmac")[0].spec.facts
    assert facts["mujoco"].count(".") == 2
    assert facts["observation"] == "facmac"
    assert facts["gymnasium"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_a_fault_even_without_a_warning(value):
    warnings, features, faulty = np.zeros((3, 7, 2), np.int32), np.ones((3, 5)), np.zeros(3, np.bool_)
    features[2, 4] = value
    assert find_faults(warnings, fault_warnings(), features, np.zeros(3), faulty) == 1
    assert faulty.tolist() == [False, False, True]


@pytest.mark.parametrize("num_envs", [4, 3])
def test_halves_that_take_turns_are_the_whole_batch(num_envs):
    """Sent together or half by half, the games are those of the whole; so is the state to resume from."""
    whole, halves = (make("Ant-4x2", num_envs, 5, max_episode_steps=7) for make in (make_env, in_groups))
    expected, got = (StepArrays.empty(whole.spec) for _ in range(2))
    whole.reset(expected)
    halves.reset(got)
    rng, parts = np.random.default_rng(0), np.split(np.arange(num_envs), 2 - num_envs % 2)
    for step in range(10):
        action = rng.uniform(-1, 1, (num_envs, 4, 2)).astype(np.float32)
        whole.step(action, expected)
        for rows in [np.arange(num_envs)] if step % 2 else parts[::-1]:
            halves.send(action, rows)
        first = halves.recv(got, 1)
        assert first.tolist() == (parts[0] if step % 2 else parts[-1]).tolist()
        if len(first) < num_envs:
            halves.recv(got, num_envs - len(first))
        for f in fields(StepArrays):
            assert np.array_equal(getattr(expected, f.name), getattr(got, f.name)), f.name
    state = whole.state_dict()
    assert all(np.array_equal(state[name], value) for name, value in halves.state_dict().items())
    action = rng.uniform(-1, 1, (num_envs, 4, 2)).astype(np.float32)
    whole.step(action, expected)
    halves.step(action, got)
    halves.load_state_dict(state)
    halves.step(action, got)
    assert np.array_equal(expected.obs, got.obs)
    with pytest.raises(UsageError, match="not a state of mamujoco/Ant-4x2"):
        halves.load_state_dict({})
    with pytest.raises(UsageError, match="rows of mamujoco/Ant-4x2 has shape"):
        halves.load_state_dict(state | {"rows": state["rows"][1:]})
    action[-1, 2, 0] = np.nan
    with pytest.raises(UsageError, match=f"agent 2 in environment {num_envs - 1} is nan"):
        halves.step(action, got)
    halves.close()
    whole.close()
