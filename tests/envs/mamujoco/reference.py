"""Gymnasium-Robotics' MaMuJoCo as the oracle: started and stepped beside ours from the same states and actions."""

import mujoco
import numpy as np
from gymnasium_robotics.envs.multiagent_mujoco.mujoco_multi import MultiAgentMujocoEnv
from gymnasium_robotics.envs.multiagent_mujoco.obsk import get_parts_and_edges

from kpg_fast.envs.mamujoco import catalog

# the factorisations it lacks, built from the parts of one it has
_BORROWED = {"HalfCheetah-3x2": "2x3", "Ant-8x1": "4x2", "Walker2d-6x1": "2x3", "Walker2d-3x2": "2x3"}
_BORROWED |= {"Humanoid-17x1": "9|8", "HumanoidStandup-17x1": "9|8"}
_LABELS = {f"{part}_{leg}": f"{part}{leg}" for part in ("hip", "ankle") for leg in range(1, 5)}


def make_reference(name, **options):
    scenario, conf = catalog.parse(name)
    if name in _BORROWED:
        parts, edges, whole = get_parts_and_edges(scenario, _BORROWED[name])
        nodes = {node.label: node for part in parts for node in part}
        partition = [
            tuple(nodes[_LABELS.get(joint, joint)] for joint in joints) for joints in catalog.partition(scenario, conf)
        ]
        options["agent_factorization"] = {"partition": partition, "edges": edges, "globals": whole}
    return MultiAgentMujocoEnv(scenario, _BORROWED.get(name, conf), **options)


def restart(reference, qpos, qvel):
    """Begin an episode in a given state; returns observations and state."""
    reference.reset(seed=0)
    inner = reference.single_agent_env.unwrapped
    mujoco.mj_resetData(inner.model, inner.data)
    inner.set_state(qpos, qvel)
    return observe(reference)


def observe(reference):
    observations = reference._get_obs()
    return [_shoulders_in_order(reference, agent, observations) for agent in observations], reference.state()


def act(reference, action):
    """One step; returns reward, terminated, truncated, observations, state."""
    spaces = reference.action_spaces
    given = {agent: action[index, : spaces[agent].shape[0]] for index, agent in enumerate(spaces)}
    _, reward, terminated, truncated, _ = reference.step(given)
    agent = reference.possible_agents[0]
    return reward[agent], terminated[agent], truncated[agent], *observe(reference)


def _shoulders_in_order(reference, agent, observations):
    """Pusher's two shoulder joints have the same label, so their order changes from run to run; ours is pan, lift."""
    own = reference.k_dicts[reference.possible_agents.index(agent)][0]
    observation = observations[agent].copy()
    if [node.label for node in own[-2:]] == ["r_wrist_roll_joint"] * 2 and own[-2].qpos_ids > own[-1].qpos_ids:
        place = 2 * (len(own) - 2)
        observation[place : place + 4] = np.roll(observation[place : place + 4], 2)
    return observation
