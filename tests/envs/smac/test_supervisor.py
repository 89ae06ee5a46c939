"""Games that crash, hang, refuse and age, under both clients."""

import os
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("s2clientprotocol.sc2api_pb2", reason="pip install 'kpg_fast[smac]'")
pytest.importorskip("websocket", reason="pip install 'kpg_fast[smac]'")

from starcraft import clear_faults, launches, set_faults

from kpg_fast.envs import StepArrays
from kpg_fast.envs.smac import make_env
from kpg_fast.envs.smac.client import Happening
from kpg_fast.errors import EnvironmentFailure, UsageError

_HAVE_SMAC = find_spec("smac") is not None and find_spec("smac.env") is not None
_NEEDS_SMAC = pytest.mark.skipif(not _HAVE_SMAC, reason="github.com/oxwhirl/smac is not installed")
both_clients = pytest.mark.parametrize("client", ["native", pytest.param("smac", marks=_NEEDS_SMAC)])


@pytest.fixture
def make(game):
    """Environments of the stand-in, closed in the end; faults come first, since games are started at once."""
    made = []

    def build(name="3m", num_envs=1, *faults, client="native", seed=5, **options):
        if faults:
            set_faults(game, *faults)
        made.append(make_env(name, num_envs, seed, client=client, **{"stagger": 0.0, "sync": True} | options))
        return made[-1]

    yield build
    for env in made:
        env.close()


def choose(out, step):
    """An action for everybody that depends on the step, the environment and what it may do alone."""
    e, n, a = out.avail_actions.shape
    draws = np.stack([np.random.default_rng([step, row]).random((n, a)) for row in range(e)])
    return (draws * out.avail_actions * np.where(np.arange(a) >= 6, 8.0, 1.0)).argmax(-1).astype(np.int32)


def snapshot(out):
    return {name: value.copy() for name, value in vars(out).items()}


def roll(env, steps, before=lambda step: None):
    """Reset, then ``steps`` steps; what each of them wrote."""
    out, seen = StepArrays.empty(env.spec), []
    env.reset(out)
    for step in range(steps):
        before(step)
        env.step(choose(out, step), out)
        seen.append(snapshot(out))
    return seen


@pytest.mark.parametrize(
    ("client", "kind"),
    [
        *(("native", kind) for kind in ("crash", "hang", "error", "garbage", "close")),
        *(pytest.param("smac", kind, marks=_NEEDS_SMAC) for kind in ("crash", "hang")),
    ],
)
def test_a_lost_game_costs_one_episode(make, game, client, kind):
    env = make("3m", 2, {"kind": kind, "at": 10, "times": 1}, client=client, timeout=1.0)
    seen = roll(env, 25)
    void = [(step, row) for step, one in enumerate(seen) for row in range(2) if not one["valid"][row]]
    assert len(void) == 1
    step, row = void[0]
    assert step == 9
    one = seen[step]
    assert one["truncated"][row]
    assert not one["terminated"][row]
    assert not one["won"][row]
    assert one["reward"][row] == 0
    assert one["avail_actions"][row, :, 1].all(), "a new episode is there: everybody is alive and may stop"
    counts = env.metrics()
    assert counts["smac/crashes"] + counts["smac/hangs"] == 1
    assert counts["smac/hangs"] == (kind == "hang")
    assert counts["smac/dropped_episodes"] == 1
    assert launches(game) == 3


@both_clients
def test_a_crash_in_the_first_episode_leaves_the_reward_scale_alone(make, client):
    """The library adds its scale up a second time then: 365 becomes 500, and all rewards shrink for good."""
    env = make("3m", 1, {"kind": "crash", "at": 4, "times": 1}, client=client)
    after_loss = [one["reward"] for one in roll(env, 60)][4:]
    assert env.state_dict()["max_reward"] == 365
    clear = make("3m", 1, {"kind": "slow", "seconds": [0, 0]}, client=client)
    rewards = {float(np.round(value[0] * 365 / 20, 3)) for value in after_loss}
    assert any(value > 0 for value in rewards)
    assert all(abs(value - round(value)) < 1e-3 for value in rewards), "damage to Marines comes in whole points"
    roll(clear, 1)
    assert clear.state_dict()["max_reward"] == 365


@both_clients
def test_units_that_come_one_by_one_are_waited_for_and_counted_once(make, client):
    env = make("3m", 1, {"kind": "partial", "loops": 2}, client=client)
    seen = roll(env, 40)
    assert all(one["valid"].all() for one in seen)
    assert any(one["terminated"][0] for one in seen)
    assert env.state_dict()["max_reward"] == 365


def test_a_loss_between_a_step_and_its_observation_voids_the_episode(make):
    """Or the new game's first observation would pass for the one after the step."""
    env = make("3m", 1)
    out, wait = StepArrays.empty(env.spec), env._client.wait

    def lost_late(minimum, timeout):
        assert [one.what for one in wait(minimum, timeout)] == ["stepped"]
        env._client.wait = wait
        return [Happening(0, "failed", "killed")]

    env.reset(out)
    env._client.wait = lost_late
    env.step(choose(out, 0), out)
    assert (out.valid[0], out.truncated[0], out.terminated[0]) == (False, True, False)
    assert env.metrics()["smac/dropped_episodes"] == 1


def test_a_run_with_a_lost_game_equals_one_with_that_episode_dropped(make, game):
    env = make("8m", 2, {"kind": "crash", "at": 12, "times": 1})
    lost = roll(env, 40)
    row = int(np.flatnonzero(~lost[11]["valid"])[0])
    env.close()
    clear_faults(game)
    other = make("8m", 2)
    dropped = roll(other, 40, lambda step: other.drop_episode(row) if step == 11 else None)
    for one, two in zip(lost, dropped, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    assert other.metrics()["smac/dropped_episodes"] == 1


@_NEEDS_SMAC
def test_both_clients_play_the_same_game(make):
    for one, two in zip(roll(make("2s3z", 2), 60), roll(make("2s3z", 2, client="smac"), 60), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_the_others_go_on_while_a_game_is_rebuilt(make):
    crash, slow = {"kind": "crash", "at": 3, "times": 1}, {"kind": "slow_start", "seconds": 1.0, "launch": 2}
    env = make("3m", 2, crash, slow, sync=False)
    out = StepArrays.empty(env.spec)
    env.reset(out)
    valid = []
    while len(valid) < 5000 and not (valid and not all(map(all, valid)) and out.valid.all()):
        env.step(choose(out, len(valid)), out)
        valid.append(out.valid.tolist())
        gone = ~out.valid
        assert out.truncated[gone].all(), "every void step ends a void episode"
        assert not out.obs[gone & ~out.alive.any(1)].any()
        assert out.avail_actions.any(2).all(), "there is always an action to choose"
    lost = np.array(valid).all(0).argmin()
    assert np.array(valid)[:, 1 - lost].all()
    assert (~np.array(valid)[:, lost]).sum() > 20
    assert env.metrics()["smac/crashes"] == 1


def test_a_game_is_replaced_before_it_is_too_old(make, game):
    limit = {"kind": "loop_limit", "loops": 8 * 100}
    young = make("3m", 1, limit, restart_after=30)
    seen = roll(young, 150)
    assert all(one["valid"].all() for one in seen)
    assert young.metrics()["smac/planned_restarts"] == launches(game) - 1 >= 2
    assert young.metrics()["smac/crashes"] == 0
    old = make("3m", 1, limit)
    assert sum(not one["valid"][0] for one in roll(old, 150)) == old.metrics()["smac/crashes"] > 0


@both_clients
def test_a_game_that_never_plays_stops_the_run_with_its_log(make, game, client):
    env = make("3m", 1, {"kind": "crash", "at": 2}, client=client, max_failures=3)
    with pytest.raises(EnvironmentFailure, match="lost 3 games") as failure:
        roll(env, 20)
    assert "access violation" in str(failure.value)
    assert launches(game) == 3


@both_clients
@pytest.mark.parametrize("fault", ["refuse", "no_game"])
def test_a_game_that_cannot_be_had_is_an_error_at_once(make, client, fault):
    with pytest.raises(EnvironmentFailure, match=r"403|cannot be created|InvalidMapData"):
        make("3m", 1, {"kind": fault}, client=client, max_failures=1, launch_timeout=5.0)


@both_clients
def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(make, monkeypatch, client):
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    make("3m", 1, client=client, max_failures=1, launch_timeout=5.0)


def test_slow_games_are_waited_for_but_not_for_ever(make):
    slow = {"kind": "slow_start", "seconds": 1.0}
    make("3m", 1, slow).close()
    begun = time.monotonic()
    with pytest.raises(EnvironmentFailure, match=r"not ready within 0\.5 s|does not listen after 0\.5 s"):
        make("3m", 1, slow, launch_timeout=0.5, max_failures=2)
    assert time.monotonic() - begun < 5


def test_the_first_ready_are_served_first(make):
    env = make("3m", 3, {"kind": "slow", "seconds": [0.15, 0.2], "launch": 0}, stagger=0.3)
    lock_step = roll(make("3m", 3), 30)
    out, taken = StepArrays.empty(env.spec), np.zeros(3, int)
    env.reset(out)
    rows = np.arange(3)
    while taken[0] < 4:
        action = np.zeros((3, 3), np.int32)
        for row in rows:
            action[row] = choose(out, taken[row])[row]
        env.send(action, rows)
        rows = env.recv(out, minimum=1)
        for row in rows:
            if taken[row] < 30:
                for name in ("obs", "reward", "terminated", "avail_actions"):
                    np.testing.assert_array_equal(getattr(out, name)[row], lock_step[taken[row]][name][row])
            taken[row] += 1
    assert taken[1:].min() > 2 * taken[0], "nobody waits for the slow one"


def test_a_resumed_run_begins_with_new_episodes(make):
    env = make("3m", 2)
    roll(env, 5)
    saved = env.state_dict()
    other = make("3m", 2)
    out = StepArrays.empty(other.spec)
    other.reset(out)
    other.load_state_dict(saved)
    other.step(np.full((2, 3), 8, np.int32), out)
    assert not out.valid.any()
    assert out.truncated.all()
    other.step(choose(out, 0), out)
    assert out.valid.all()
    np.testing.assert_array_equal(other.state_dict()["launches"], saved["launches"] + 1)
    with pytest.raises(UsageError, match="launches"):
        make("3m", 1).load_state_dict(saved)


@both_clients
def test_reset_gives_an_episode_up_but_never_a_new_one(make, game, client):
    env = make("3m", 1, client=client)
    first, again, later = (StepArrays.empty(env.spec) for _ in range(3))
    env.reset(first)
    env.reset(again)
    np.testing.assert_array_equal(first.obs, again.obs)
    env.step(choose(again, 0), again)
    env.reset(later)
    assert not np.array_equal(first.obs, later.obs), "another episode"
    assert (later.obs[0, :, -1] == 1).all(), "at full health"
    assert launches(game) == 1
    env.step(choose(later, 1), later)
    assert later.valid.all()
    assert env.state_dict()["max_reward"] == 365


def test_an_action_that_is_not_available_is_refused(make):
    env = make("3m", 2)
    out = StepArrays.empty(env.spec)
    env.reset(out)
    action = np.ones((2, 3), np.int32)
    action[1, 2] = 0
    with pytest.raises(UsageError, match="agent 2 of environment 1 cannot take action 0"):
        env.step(action, out)
    action[1, 2] = 99
    with pytest.raises(UsageError, match="cannot take action 99"):
        env.step(action, out)
    action[1, 2] = 1
    env.step(action, out)
    assert out.valid.all()


@both_clients
@pytest.mark.parametrize("bootstrap", [False, True])
def test_the_time_limit_ends_an_episode_one_way_or_the_other(make, client, bootstrap):
    env = make("2s_vs_1sc", 1, client=client, bootstrap_time_limit=bootstrap)
    out = StepArrays.empty(env.spec)
    env.reset(out)
    for step in range(300):
        assert not (out.terminated | out.truncated).any(), step
        env.step(np.ones((1, 2), np.int32), out)
    assert (bool(out.terminated[0]), bool(out.truncated[0])) == (not bootstrap, bootstrap)
    assert out.last_obs.any()
    assert out.last_state.any()


@both_clients
def test_time_spent_elsewhere_is_not_time_waited(make, client):
    """A learner that is long away, or a process that was stopped, finds its answers and loses nobody."""
    env = make("3m", 1, client=client, timeout=0.3, sync=False)
    out, wait, looks = StepArrays.empty(env.spec), env._client.wait, []

    def late(minimum, timeout):
        looks.append(1)
        return wait(minimum, timeout) if len(looks) > 3 else []

    env.reset(out)
    env._client.wait = late
    env.send(choose(out, 0), [0])
    time.sleep(0.6)
    assert env.recv(out).tolist() == [0]
    assert out.valid.all()
    assert env.metrics()["smac/hangs"] == 0


@both_clients
def test_ctrl_c_on_a_terminal_does_not_reach_the_games(make, client):
    """It goes to the terminal's foreground process group, of which the run is one and its games are none."""
    env = make("3m", 1, client=client)
    pid = env._client._slots[0].process.pid
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    assert all(os.getpgid(one) != os.getpgrp() for one in [pid, *children])


@both_clients
def test_even_a_game_that_will_not_go_is_ended(make, client):
    env = make("3m", 1, {"kind": "orphan"}, client=client)
    pid = env._client._slots[0].process.pid
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    env.close()
    env.close()
    for process in [pid, *children]:
        deadline = time.monotonic() + 3
        while os.path.exists(f"/proc/{process}/exe") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not os.path.exists(f"/proc/{process}/exe")
