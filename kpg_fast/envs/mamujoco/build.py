"""Everything of a MAMuJoCo environment that does not change while it runs."""

import os
from typing import Any, NamedTuple

import numpy as np

from kpg_fast.envs.mamujoco import catalog, requirements
from kpg_fast.envs.mamujoco.anatomy import Anatomy, anatomy
from kpg_fast.envs.mamujoco.doctor import contact_force_backend
from kpg_fast.envs.mamujoco.layout import Layout
from kpg_fast.envs.mamujoco.models import load_model
from kpg_fast.envs.mamujoco.native import NativePhysics
from kpg_fast.envs.mamujoco.observation import Plan, plan
from kpg_fast.envs.mamujoco.options import Options
from kpg_fast.envs.mamujoco.physics import BatchPhysics, Physics, fault_warnings
from kpg_fast.envs.mamujoco.tasks import TASKS, Task, Terms, reward_terms
from kpg_fast.envs.vec_env import Array, EnvSpec


class Built(NamedTuple):
    """The constant parts, and the simulations."""

    spec: EnvSpec
    scenario: str
    task: Task
    model: Any  # mujoco.MjModel
    layout: Layout
    plan: Plan
    terms: Terms
    actuators: Array  # [N, A] int32: the actuator of each action, -1 where there is none
    physics: Physics
    fault_warnings: Array


def build(name: str, num_envs: int, options: Options) -> Built:
    """Look up, compile and allocate; see `env.MamujocoEnv` for arguments and errors."""
    scenario, conf = catalog.parse(name)
    model, task = load_model(scenario, conf), TASKS[scenario]
    layout = Layout(model, task.fields, derived=scenario == "Reacher")
    body, partition = anatomy(model, scenario, conf), catalog.partition(scenario, conf)
    seen = plan(model, layout, scenario, body, partition, options.observation, options.agent_obsk)
    actuators = _actuators(partition, body)
    physics, contact_forces = _simulations(model, num_envs, task, options)
    bounds = _bounds(model, actuators)
    spec = EnvSpec(
        name=f"mamujoco/{name}",
        num_envs=num_envs,
        num_agents=len(partition),
        obs_size=seen.obs_index.shape[1],
        state_size=seen.state_index.size,
        num_actions=actuators.shape[1],
        max_episode_steps=options.max_episode_steps or task.max_episode_steps,
        action_low=bounds[0],
        action_high=bounds[1],
        facts={
            "mujoco": requirements.mujoco().__version__,
            "gymnasium": requirements.installed_version("gymnasium") or "",
            "observation": options.observation,
            "agent_obsk": str(options.agent_obsk),
            "contact_forces": contact_forces,
        },
    )
    terms = reward_terms(model, layout, scenario)
    return Built(spec, scenario, task, model, layout, seen, terms, actuators, physics, fault_warnings())


def _simulations(model: Any, num_envs: int, task: Task, options: Options) -> tuple[Physics, str]:
    threads = options.threads or min(num_envs, len(os.sched_getaffinity(0)))
    if not task.contact_forces:
        return BatchPhysics(model, num_envs, threads, task.fields), "none"
    way = contact_force_backend()[0] if options.contact_forces == "auto" else options.contact_forces
    if way == "c":
        return NativePhysics(model, num_envs, threads, task.fields), "c"
    return BatchPhysics(model, num_envs, threads, task.fields, contact_forces=True), "python"


def _actuators(partition: catalog.Partition, body: Anatomy) -> Array:
    actuators = np.full((len(partition), max(len(names) for names in partition)), -1, np.int32)
    for agent, names in enumerate(partition):
        actuators[agent, : len(names)] = [body.joints[name].actuator for name in names]
    return actuators


def _bounds(model: Any, actuators: Array) -> Array:
    """Low and high [2, N, A] float32 of each action; 0 where there is none."""
    ranges = np.concatenate([model.actuator_ctrlrange, np.zeros((1, 2))]).astype(np.float32)
    return np.moveaxis(ranges[actuators], -1, 0)
