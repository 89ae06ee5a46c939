"""JAX's generator without JAX, and JaxMARL's starts seed for seed."""

import jax
import numpy as np
import pytest
from jaxmarl import make as jax_make
from jaxmarl.environments.smax import map_name_to_scenario

from kpg_fast.envs import StepArrays, make
from kpg_fast.envs.smax import threefry
from kpg_fast.envs.smax.scenario import NAMED
from tests.envs.smax.replay import FOLDER


def test_generator_equals_jax():
    key, own = jax.random.PRNGKey(123), threefry.prng_key(123)
    np.testing.assert_array_equal(jax.random.split(key, 7), threefry.split(own, 7))
    np.testing.assert_array_equal(jax.random.bits(key, (9,)), threefry.bits(own, 9))
    np.testing.assert_array_equal(jax.random.uniform(key, (5,), minval=-2, maxval=2), threefry.uniform(own, 5, -2, 2))
    logits = np.zeros(6, np.float32)
    np.testing.assert_array_equal(jax.random.categorical(key, logits, shape=(40,)), threefry.choice(own, 40, 6))
    keys = jax.random.split(key, 20)
    coins = jax.vmap(lambda k: jax.random.randint(k, (), 0, 2))(keys)
    np.testing.assert_array_equal(coins != 0, threefry.coin(np.array(keys)))


@pytest.mark.parametrize("name", NAMED)
def test_first_episodes_start_as_recorded(name):
    with np.load(FOLDER / "starts" / "jaxmarl.npz") as recorded:
        position, unit_type = recorded[f"{name}-position"], recorded[f"{name}-unit_type"]
    env = make(f"smax/{name}", len(position), seed=11, reset_random="threefry")
    env.reset(StepArrays.empty(env.spec))
    state = env.get_state()
    np.testing.assert_array_equal(state["unit_type"], unit_type)
    assert np.abs(state["position"] - position).max() < 1e-5


def test_first_and_later_episodes_start_as_in_jaxmarl():
    """Live, with another seed: the first episode of an environment, and its second by the documented key."""
    envs, seed = 8, 2
    ours = make("smax/smacv2_5_units", envs, seed=seed, reset_random="threefry", max_steps=1)
    theirs = jax_make("HeuristicEnemySMAX", scenario=map_name_to_scenario("smacv2_5_units"))
    reset = jax.jit(jax.vmap(theirs.reset))
    out = StepArrays.empty(ours.spec)
    ours.reset(out)
    keys = threefry.split(threefry.prng_key(seed), envs)
    for episode_keys in (keys, threefry.split(keys, 2)[:, 1]):
        obs, state = reset(episode_keys)
        np.testing.assert_array_equal(ours.get_state()["unit_type"], state.state.unit_types)
        wanted = np.stack([obs[agent] for agent in theirs.agents], axis=1)
        assert np.abs(out.state - obs["world_state"]).max() < 1e-5
        assert np.abs(out.obs - wanted).max() < 2e-6
        ours.step(np.full((envs, 5), 4, np.int32), out)
