"""What every family is asked for: how many environments, and from which seed."""

import numpy as np
import pytest

from kpg_fast.envs import StepArrays, make, make_in_turns, make_seeds
from kpg_fast.errors import UsageError


@pytest.mark.parametrize(
    ("build", "name"), [(make, "smax/3m"), (make, "toy/climbing"), (make_in_turns, "mamujoco/Hopper-3x1")]
)
@pytest.mark.parametrize("num_envs", [2.5, 2.0, "3", True, np.bool_(True), None, 0, -1, np.array([3, 3])])
def test_num_envs_is_a_whole_number_of_at_least_1(build, name, num_envs):
    with pytest.raises(UsageError, match=r"num_envs must be .*at least 1, got ") as caught:
        build(name, num_envs, 0)
    assert repr(num_envs) in str(caught.value)


@pytest.mark.parametrize(("build", "name"), [(make, "smax/3m"), (make_in_turns, "mamujoco/Hopper-3x1")])
@pytest.mark.parametrize("seed", [None, 1.5, "1", False, -1, -(2**63), 2**64])
def test_a_seed_is_a_whole_number_of_64_bits(build, name, seed):
    with pytest.raises(UsageError, match=r"seed must be a whole number from 0 to 18446744073709551615, got ") as caught:
        build(name, 1, seed)
    assert repr(seed) in str(caught.value)
    with pytest.raises(UsageError, match="seed must be"):
        make_seeds("smax/3m", 1, [0, seed])


@pytest.mark.parametrize("kind", [np.int8, np.uint32, np.int64, np.array])
def test_numbers_of_numpy_are_numbers(kind):
    env, same = make("smax/3m", kind(2), kind(5)), make("smax/3m", 2, 5)
    assert type(env.spec.num_envs) is int
    np.testing.assert_array_equal(env.state_dict()["seed"], same.state_dict()["seed"])


def test_every_seed_plays_games_of_its_own():
    seeds = [0, 2**32 - 1, 2**32, 2**64 - 1]  # an evaluation adds to the seed of its run
    starts = set()
    for seed in seeds:
        env = make("smax/3m", 1, seed)
        out = StepArrays.empty(env.spec)
        env.reset(out)
        starts.add(out.state.tobytes())
    assert len(starts) == len(seeds)
