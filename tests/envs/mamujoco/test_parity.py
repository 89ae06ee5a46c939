"""Bit for bit the tasks of Gymnasium-Robotics: same start, same actions, 200 steps."""

import numpy as np
import pytest

from kpg_fast.envs import StepArrays
from kpg_fast.envs.mamujoco import make_env

pytest.importorskip("gymnasium_robotics", reason="parity needs gymnasium-robotics")
from tests.envs.mamujoco import reference

NAMES = [
    "HalfCheetah-2x3", "HalfCheetah-6x1", "HalfCheetah-3x2",
    "Ant-2x4", "Ant-2x4d", "Ant-4x2", "Ant-8x1",
    "Hopper-3x1", "Walker2d-2x3", "Walker2d-6x1", "Walker2d-3x2",
    "Humanoid-9|8", "Humanoid-17x1", "HumanoidStandup-9|8", "HumanoidStandup-17x1",
    "Swimmer-2x1", "Reacher-2x1", "Pusher-3p",
    "ManySegmentSwimmer-10x2", "ManySegmentSwimmer-2x1", "ManySegmentAnt-2x3", "ManySegmentAnt-1x1",
]  # fmt: skip
ENVS, STEPS = 2, 200


class Beside:
    """Ours and one reference for each of its environments, compared after every step."""

    def __init__(self, name, seed=0, **options):
        self.env = make_env(name, ENVS, seed, **options)
        self.out = StepArrays.empty(self.env.spec)
        self.references = [reference.make_reference(name) for _ in range(ENVS)]
        self.random = np.random.default_rng(seed)
        self.ends = 0

    def begin(self):
        self.env.reset(self.out)
        for index in range(ENVS):
            self.restart(index)

    def restart(self, index):
        qpos, qvel = self.env.get_state()
        self.compare(index, *reference.restart(self.references[index], qpos[index], qvel[index]))

    def step(self):
        spec, out = self.env.spec, self.out
        shape = (ENVS, spec.num_agents, spec.num_actions)
        action = self.random.uniform(1.2 * spec.action_low, 1.2 * spec.action_high, shape).astype(np.float32)
        self.env.step(action, out)
        for index, beside in enumerate(self.references):
            reward, terminated, truncated, observations, state = reference.act(beside, action[index])
            assert abs(self.env.exact_reward()[index] - reward) <= 1e-12
            assert out.reward[index] == pytest.approx(reward, rel=1e-6)
            assert (out.terminated[index], out.truncated[index], out.valid[index]) == (terminated, truncated, True)
            if terminated or truncated:
                self.ends += 1
                self.compare(index, observations, state, last=True)
                self.restart(index)
            else:
                self.compare(index, observations, state)

    def compare(self, index, observations, state, last=False):
        exact_obs, exact_state = self.env.exact_observation(last)
        obs = self.out.last_obs if last else self.out.obs
        for agent, expected in enumerate(observations):
            np.testing.assert_array_equal(exact_obs[index, agent, : expected.size], expected)
            np.testing.assert_array_equal(obs[index, agent, : expected.size], expected.astype(np.float32))
            assert not obs[index, agent, expected.size :].any()
        np.testing.assert_array_equal(exact_state[index], state)
        ours = (self.out.last_state if last else self.out.state)[index]
        np.testing.assert_array_equal(ours, state.astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_two_hundred_steps(name):
    beside = Beside(name)
    beside.begin()
    for _ in range(STEPS):
        beside.step()
    if name.startswith(("Hopper", "Walker2d", "Humanoid-", "Reacher", "Pusher")):
        assert beside.ends > 0


@pytest.mark.parametrize("name", ["Ant-4x2", "Humanoid-9|8"])
def test_contact_forces_by_the_python_api(name):
    beside = Beside(name, contact_forces="python")
    assert beside.env.spec.facts["contact_forces"] == "python"
    beside.begin()
    for _ in range(60):
        beside.step()


@pytest.mark.parametrize("agent_obsk", [0, 2])
@pytest.mark.parametrize("name", ["HalfCheetah-6x1", "Ant-4x2", "Humanoid-9|8"])
def test_other_neighbourhoods(name, agent_obsk):
    env = make_env(name, 1, agent_obsk=agent_obsk)
    out = StepArrays.empty(env.spec)
    env.reset(out)
    beside = reference.make_reference(name, agent_obsk=agent_obsk)
    observations, _ = reference.restart(beside, *(part[0] for part in env.get_state()))
    for agent, expected in enumerate(observations):
        np.testing.assert_array_equal(env.exact_observation()[0][0, agent, : expected.size], expected)


def test_facmac_mode_is_without_globals():
    env = make_env("Ant-4x2", 1, observation="facmac")
    out = StepArrays.empty(env.spec)
    env.reset(out)
    beside = reference.make_reference("Ant-4x2", global_categories=())
    observations, _ = reference.restart(beside, *(part[0] for part in env.get_state()))
    for agent, expected in enumerate(observations):
        np.testing.assert_array_equal(env.exact_observation()[0][0, agent], expected)
