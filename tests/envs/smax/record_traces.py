"""Record golden traces of JaxMARL 0.2.0: ``python tests/envs/smax/record_traces.py [NAME ...]``.

A trace holds, for every step of a few games, the state before and after, the actions, every random draw and what the
learner saw, so that any engine can be set to the state before a step, given the draws, and compared after it, without
JAX. Actions are those of a noisy attacker: mostly available, some unavailable, some that do not exist.
"""

import json
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxmarl import make
from jaxmarl.environments.smax import Scenario, map_name_to_scenario

FOLDER = Path(__file__).parent / "traces"
STEPS, GAMES = 200, 2
START_SEED, STARTS = 11, 24
OBS_BYTES = 1 << 20  # of raw observations a trace; larger games keep those of every k-th step
MAPS = (
    *("3m", "8m", "25m", "2s3z", "3s5z", "5m_vs_6m", "10m_vs_11m", "27m_vs_30m", "3s5z_vs_3s6z", "3s_vs_5z"),
    *("6h_vs_8z", "smacv2_5_units", "smacv2_10_units", "smacv2_20_units"),
)
# Both enemy modes take turns over the fourteen maps; the rest of the options each appear in some trace.
RECORDINGS = {name: {"scenario": name, "attack_mode": ("closest", "random")[i % 2]} for i, name in enumerate(MAPS)} | {
    "2s3z-random": {"scenario": "2s3z", "attack_mode": "random"},
    "smacv2_10_units-random": {"scenario": "smacv2_10_units", "attack_mode": "random"},
    "5m_vs_6m-continuous": {"scenario": "5m_vs_6m", "action_type": "continuous"},
    "smacv2_5_units-conic": {"scenario": "smacv2_5_units", "observation": "conic"},
    "3s_vs_5z-conic-continuous": {"scenario": "3s_vs_5z", "observation": "conic", "action_type": "continuous"},
    "3s_vs_5z-blind": {
        **{"scenario": "3s_vs_5z", "see_enemy_actions": False, "walls_cause_death": False},
        **{"enemy_shoots": False},
    },
    "2s3z-self_play": {"scenario": "2s3z", "self_play": True},
    "3s_vs_5z-self_play": {"scenario": "3s_vs_5z", "self_play": True, "see_enemy_actions": False},
    "smacv2_5_units-self_play-continuous": {
        **{"scenario": "smacv2_5_units", "self_play": True, "action_type": "continuous"},
        **{"use_self_play_reward": True},
    },
    "10m_vs_7m-self_play-conic": {"scenario": "10m_vs_7m", "self_play": True, "observation": "conic"},
}


def build(options):
    """The JaxMARL environment for our names of its options, and its two-team core."""
    options = dict(options)
    name = options.pop("scenario")
    if name == "10m_vs_7m":
        scenario = Scenario(jnp.zeros((17,), dtype=jnp.uint8), 10, 7, False, False)
    else:
        scenario = map_name_to_scenario(name)
    renamed = {"observation": "observation_type"}
    two_teams = options.pop("self_play", False)
    kwargs = {renamed.get(key, key): value for key, value in options.items()}
    env = make("SMAX" if two_teams else "HeuristicEnemySMAX", scenario=scenario, **kwargs)
    return env, env if two_teams else env._env, two_teams


def named_state(state, two_teams, num_allies):
    """JaxMARL's state (a batch of them) under the names of ``SmaxEnv.set_state``."""
    core = state if two_teams else state.state
    games, units = core.unit_health.shape
    goal, slot = np.zeros((games, units, 2), np.float32), np.full((games, units), -1, np.int32)
    if not two_teams:
        goal[:, num_allies:] = state.enemy_policy_state.default_target
        slot[:, num_allies:] = state.enemy_policy_state.last_attacked_enemy
    return {
        "position": np.array(core.unit_positions),
        "health": np.array(core.unit_health),
        "cooldown": np.array(core.unit_weapon_cooldowns),
        "unit_type": np.array(core.unit_types, np.int32),
        "alive": np.array(core.unit_alive, np.int32),
        "last_move": np.array(core.prev_movement_actions),
        "last_attack": np.array(core.prev_attack_actions, np.int32),
        "goal": goal,
        "last_slot": slot,
        "step": np.array(core.step, np.int64),
    }


def draws_of(env, two_teams, continuous, num_enemies, key, actions):
    """What ``step_env(key)`` draws: u_target, u_attack, the allies' two decisions as 0 or 1, and the ticks' key."""
    key, action_key = jax.random.split(key)
    script = jax.vmap(jax.random.split)(jax.random.split(action_key, num_enemies))
    u_target, u_attack = (jax.vmap(jax.random.uniform)(script[:, i]) for i in range(2))
    decisions = jnp.zeros((0, 2), jnp.float32)
    if continuous:
        if not two_teams:
            key, action_key = jax.random.split(key)
        padded = jnp.zeros((env.num_allies + env.num_enemies, 4)).at[: len(actions)].set(actions)
        padded = jnp.clip(padded, 0.0, 1.0) if two_teams else padded
        pair = []
        for child, column in zip(jax.random.split(action_key), (1, 0), strict=True):
            logits = jnp.stack([jnp.log(padded[:, column]), jnp.log(1 - padded[:, column])])
            pair.append(jax.random.categorical(child, logits, axis=0)[: len(actions)])
        decisions = jnp.stack(pair, axis=-1) * (1.0 - 2.0**-24)
    return u_target, u_attack, decisions, key


def choose(rng, available, num_allies, continuous):
    """Actions of a noisy attacker, [E, N] or [E, N, 4]."""
    games, agents, num_actions = available.shape
    if continuous:
        action = rng.random((games, agents, 4), np.float32)
        outside = rng.random((games, agents)) < 0.05
        action[outside] = action[outside] * np.float32(1.5) - np.float32(0.25)
        return action
    weight = rng.random(available.shape) * available
    weight[..., 5:] *= rng.choice([0.0, 3.0], (games, agents, 1), p=[0.3, 0.7])
    forward = np.where(np.arange(agents) < num_allies, 1, 3)
    advances = rng.random((games, agents)) < 0.6
    weight[..., :4] += (np.arange(4) == forward[:, None]) * advances[..., None]
    action = weight.argmax(-1)
    dice = rng.random((games, agents))
    anything = rng.integers(0, num_actions, (games, agents))
    beyond = rng.integers(num_actions, num_actions + agents + 8, (games, agents))
    return np.where(dice < 0.02, beyond, np.where(dice < 0.12, anything, action)).astype(np.int32)


def record(options, seed, steps=STEPS, games=GAMES):
    """Play and write down; returns the arrays of a trace."""
    env, core, two_teams = build(options)
    agents, continuous = env.agents, options.get("action_type") == "continuous"
    allies, num_actions = (
        core.num_allies,
        5 + (max(core.num_allies, core.num_enemies) if two_teams else core.num_enemies),
    )

    def step(key, state, actions):
        obs, after, reward, done, _ = env.step_env(key, state, dict(zip(agents, actions, strict=True)))
        available = env.get_avail_actions(after)
        return after, [obs[a] for a in agents], obs["world_state"], reward, done, [available[a] for a in agents]

    step = jax.jit(jax.vmap(step))
    reset = jax.jit(jax.vmap(env.reset))
    draws = jax.jit(jax.vmap(partial(draws_of, core, two_teams, continuous, core.num_enemies)))
    every = max(1, steps * games * len(agents) * core.obs_size * 4 // OBS_BYTES)

    rng, key = np.random.default_rng(seed), jax.random.PRNGKey(seed)
    key, child = jax.random.split(key)
    _, state = reset(jax.random.split(child, games))
    available = pad([env_available(env, state)[a] for a in agents], num_actions)
    fresh, rows, starts = np.ones(games, bool), [], []
    for t in range(steps):
        actions = choose(rng, available, allies, continuous)
        key, child, reset_key = jax.random.split(key, 3)
        keys = jax.random.split(child, games)
        before = named_state(state, two_teams, allies)
        starts += [{name: value[e] for name, value in before.items()} for e in np.flatnonzero(fresh)]
        u_target, u_attack, u_ally, tick_key = draws(keys, actions)
        state, obs, world, reward, done, after_available = step(keys, state, actions)
        available = pad(after_available, num_actions)
        row = {f"after_{name}": value for name, value in named_state(state, two_teams, allies).items()}
        row |= {"fresh": fresh, "action": actions, "u_target": u_target, "u_attack": u_attack, "u_ally": u_ally}
        row |= {"tick_key": tick_key, "done": done["__all__"], "reward": np.array(reward[agents[0]])}
        row |= {"enemy_reward": np.array(reward[agents[-1]]), "available": np.packbits(available, axis=-1)}
        if t % every == 0:
            row |= {"obs": np.stack(obs, axis=1), "state": world}
        rows.append({name: np.asarray(value) for name, value in row.items()})
        fresh = np.array(done["__all__"])
        _, begun = reset(jax.random.split(reset_key, games))
        state = jax.tree.map(
            lambda new, old, ended=fresh: jnp.where(ended.reshape(-1, *[1] * (new.ndim - 1)), new, old), begun, state
        )
        begun_available = pad([env_available(env, state)[a] for a in agents], num_actions)
        available = np.where(fresh[:, None, None], begun_available, available)
    trace = {name: np.stack([row[name] for row in rows if name in row]) for name in rows[0]}
    trace |= {f"start_{name}": np.stack([start[name] for start in starts]) for name in starts[0]}
    trace["every"], trace["options"] = np.array(every), np.array(json.dumps(options))
    return trace


def env_available(env, state):
    return jax.vmap(env.get_avail_actions)(state)


def pad(available, num_actions):
    """The agents' masks side by side, bool [E, N, num_actions]."""
    return np.stack([np.pad(a, ((0, 0), (0, num_actions - a.shape[-1]))) for a in map(np.array, available)], 1) != 0


def record_starts():
    """Positions and types of the first episodes of all maps: reset(split(PRNGKey(START_SEED), STARTS))."""
    arrays, keys = {}, jax.random.split(jax.random.PRNGKey(START_SEED), STARTS)
    for name in MAPS:
        env = make("HeuristicEnemySMAX", scenario=map_name_to_scenario(name))
        _, state = jax.jit(jax.vmap(env.reset))(keys)
        arrays[f"{name}-position"] = np.array(state.state.unit_positions)
        arrays[f"{name}-unit_type"] = np.array(state.state.unit_types)
    np.savez_compressed(FOLDER / "starts" / "jaxmarl.npz", **arrays)


def main(names):
    (FOLDER / "starts").mkdir(parents=True, exist_ok=True)
    if not names or "starts" in names:
        record_starts()
    for number, (name, options) in enumerate(RECORDINGS.items()):
        if names and name not in names:
            continue
        trace = record(options, seed=1000 + number)
        small = {key: narrow(value) for key, value in trace.items()}
        path = FOLDER / f"{name}.npz"
        np.savez_compressed(path, **small)
        print(f"{name}: {path.stat().st_size / 1024:.0f} KiB, {len(trace['start_step'])} episodes", flush=True)


def narrow(value):
    """int8 where the numbers fit."""
    fits = value.dtype.kind == "i" and value.size and np.abs(value).max() < 128
    return value.astype(np.int8) if fits else value


if __name__ == "__main__":
    main(sys.argv[1:])
