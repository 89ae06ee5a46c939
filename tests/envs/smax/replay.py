"""Hold an engine to a golden trace: set the state before a step, give it the draws, compare after it."""

import json
from pathlib import Path

import numpy as np

from kpg_fast.envs import StepArrays, make
from kpg_fast.envs.smax import threefry

FOLDER = Path(__file__).parent / "traces"
TRACES = sorted(path.stem for path in FOLDER.glob("*.npz"))
EXACT = ("alive", "health", "unit_type", "last_attack", "last_slot", "step")
# What one step may be off by; the world state holds raw positions and cooldowns beside features of order one.
TOLERANCE = {
    **{"position": 1e-5, "cooldown": 1e-6, "last_move": 1e-6, "goal": 1e-5, "reward": 1e-6, "enemy_reward": 1e-6},
    **{"obs": 1e-6, "state": 1e-6, "state_position": 1e-5},
}


def load(name):
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def build(trace, **more):
    options = json.loads(str(trace["options"]))
    return make(f"smax/{options.pop('scenario')}", trace["fresh"].shape[1], flavour="jaxmarl", **options, **more)


def states_before(trace):
    """For every step the named state that it starts from: a fresh episode's, or the one after the step before."""
    names = [key.removeprefix("start_") for key in trace if key.startswith("start_")]
    state = {name: np.zeros_like(trace[f"after_{name}"][0]) for name in names}
    episode = 0
    for t, fresh in enumerate(trace["fresh"]):
        for e in np.flatnonzero(fresh):
            for name in names:
                state[name][e] = trace[f"start_{name}"][episode]
            episode += 1
        yield {name: value.copy() for name, value in state.items()}
        state = {name: trace[f"after_{name}"][t].copy() for name in names}


def take_step(env, before, trace, t, out):
    """Step ``t`` of a trace from the state ``before``, with the draws that were recorded."""
    env.set_state(**before)
    deviations = threefry.cooldown_deviations(trace["tick_key"][t], env.scenario.num_units)
    u_ally = trace["u_ally"][t] if trace["u_ally"].shape[2] else None
    env.step_given(trace["action"][t], out, trace["u_target"][t], trace["u_attack"][t], deviations, u_ally)


def replay(trace, env=None, steps=None):
    """Replay a trace, set back to it before every step; raises where exact things differ.

    Returns the largest errors of everything inexact, and how many steps (of one game) a rounding had thrown.
    """
    env = env or build(trace)
    out = StepArrays.empty(env.spec)
    worst, thrown = {}, 0
    for t, before in zip(range(steps or len(trace["fresh"])), states_before(trace), strict=False):
        take_step(env, before, trace, t, out)
        state, calm = env.get_state(), ~trace["done"][t]
        error = np.abs(state["position"] - trace["after_position"][t]).max((1, 2)) * calm
        compare_outcome(out, env, trace, t, worst)
        compare_exact(state, trace, t)
        for e in np.flatnonzero(error > TOLERANCE["position"]):
            assert error[e] <= chaos(env, before, trace, t, e), f"position, step {t}, off by {error[e]}"
            calm[e], thrown = False, thrown + 1
        for name in ("position", "cooldown", "last_move", "goal"):
            note(worst, name, state[name][calm], trace[f"after_{name}"][t][calm])
        if t % int(trace["every"]) == 0:
            compare_seen(out, trace, t, worst, calm | trace["done"][t])
    return worst, thrown


def chaos(env, before, trace, t, e):
    """How far the positions of game ``e`` move if the start of the step is one rounding different.

    A crowd amplifies rounding: two units a distance d apart are pushed along a direction that one unit in the last
    place turns by its share of d, eight times a step. No engine can be closer than that to another.
    """
    rng, out, ends = np.random.default_rng(0), StepArrays.empty(env.spec), []
    for _ in range(16):
        toward = rng.choice(np.array([-np.inf, np.inf], np.float32), before["position"].shape)
        nudged = np.nextafter(before["position"], toward)
        take_step(env, before | {"position": nudged}, trace, t, out)
        ends.append(env.get_state()["position"][e])
    return np.abs(np.stack(ends) - trace["after_position"][t][e]).max()


def compare_exact(state, trace, t):
    """Of the games that go on: an ended one has begun anew."""
    on = ~trace["done"][t]
    for name in EXACT:
        np.testing.assert_array_equal(state[name][on], trace[f"after_{name}"][t][on], err_msg=f"{name}, step {t}")


def compare_outcome(out, env, trace, t, worst):
    """What the step brought, and what may be done next."""
    done, allies = trace["done"][t], env.scenario.num_allies
    np.testing.assert_array_equal(out.terminated, done, err_msg=f"terminated, step {t}")
    assert not out.truncated.any()
    alive = trace["after_alive"][t] != 0
    won = alive[:, :allies].any(1) & ~alive[:, allies:].any(1)
    np.testing.assert_array_equal(out.won, won, err_msg=f"won, step {t}")
    available = np.unpackbits(trace["available"][t], axis=-1, count=out.avail_actions.shape[-1]).astype(bool)
    if not env.spec.continuous:
        np.testing.assert_array_equal(out.avail_actions[~done], available[~done], err_msg=f"available, step {t}")
    np.testing.assert_array_equal(out.alive[~done], alive[~done, : env.spec.num_agents])
    note(worst, "reward", out.reward, trace["reward"][t])
    if env.spec.num_agents > allies:
        note(worst, "enemy_reward", env.enemy_reward, trace["enemy_reward"][t])


def compare_seen(out, trace, t, worst, calm):
    """Observations and world state; of an ended game the last ones."""
    ended, row = trace["done"][t], t // int(trace["every"])
    obs = np.where(ended[:, None, None], out.last_obs, out.obs)
    state, wanted = np.where(ended[:, None], out.last_state, out.state), trace["state"][row]
    note(worst, "obs", obs[calm], trace["obs"][row][calm])
    units = state.shape[-1] // 12
    error = np.abs(state - wanted)[calm, : 10 * units].reshape(-1, units, 10)
    note(worst, "state_position", error[..., 1:3], 0.0)
    note(worst, "state", np.delete(error, [1, 2], axis=-1), 0.0)
    np.testing.assert_array_equal(state[:, 10 * units :], wanted[:, 10 * units :])


def note(worst, name, got, wanted):
    error = np.abs(got.astype(np.float64) - wanted).max() if got.size else 0.0
    assert np.isfinite(error), name
    worst[name] = max(worst.get(name, 0.0), float(error))
