"""Keeping a learner and the physics busy at once: groups of environments, and buffers a GPU can copy from by itself."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch

from kpg_fast.envs.groups import Groups
from kpg_fast.envs.mamujoco.env import MamujocoEnv
from kpg_fast.envs.mamujoco.options import Options
from kpg_fast.envs.vec_env import Array, EnvSpec, StepArrays
from kpg_fast.errors import UsageError


def make_groups(name: str, num_envs: int, seed: int = 0, groups: int = 2, **options: Any) -> list[MamujocoEnv]:
    """Split one batch into groups that step in turn: while one steps, the policy acts for another.

    Together the groups play the episodes of ``make_env(name, num_envs, seed)``, bit for bit::

        for env, out, action in zip(envs, outs, actions):
            env.step_wait()                                  # but for the first round
            env.step_async(policy(out, action), out)         # the other group is stepping meanwhile

    Raises:
        UsageError: as for ``make_env``, or ``num_envs`` cannot be split into ``groups``.
    """
    if groups < 1 or num_envs < 1 or num_envs % groups:
        raise UsageError(f"num_envs = {num_envs} cannot be split into {groups} equal groups")
    parsed = Options.parse(options)
    size = num_envs // groups
    return [
        MamujocoEnv(name, size, seed, Options(**{**vars(parsed), "first_env": parsed.first_env + group * size}))
        for group in range(groups)
    ]


def in_groups(name: str, num_envs: int, seed: int = 0, **options: Any) -> Groups:
    """One batch whose halves take turns, or one group where ``num_envs`` is odd; arguments as of `make_groups`."""
    groups = 2 if num_envs > 0 and num_envs % 2 == 0 else 1
    parts = make_groups(name, num_envs, seed, groups, **options)
    return Groups(parts, _joined, _cut)


def _joined(states: list[dict[str, Array]]) -> dict[str, Array]:
    """The state of a batch of those of its groups: one row an environment, but for what `_cut` names."""
    whole = {name: np.concatenate([state[name] for state in states]) for name in states[0]}
    faults = np.sum([state["faults"] for state in states], axis=0)
    return whole | {"faults": faults, **{name: states[0][name] for name in ("stream", "mujoco_version")}}


def _cut(state: dict[str, Array], first: int, count: int) -> dict[str, Array]:
    """The state of the group of ``count`` environments from ``first``; the first group keeps the count of faults."""
    part = {name: value[first : first + count] for name, value in state.items()}
    stream = state["stream"] + np.array([0, first], np.uint64)
    faults = state["faults"] if first == 0 else np.zeros_like(state["faults"])
    return part | {"stream": stream, "faults": faults, "mujoco_version": state["mujoco_version"]}


def step_buffers(spec: EnvSpec, count: int = 2) -> list[StepArrays]:
    """Arrays to step into by turns, so that the last step can be copied to a GPU while the next one is written.

    Their memory is pinned where CUDA is present: ``torch.from_numpy(buffer.obs).to("cuda", non_blocking=True)`` then
    runs beside the physics.
    """
    return [
        _pinned(StepArrays.empty(spec)) if torch.cuda.is_available() else StepArrays.empty(spec) for _ in range(count)
    ]


def _pinned(arrays: StepArrays) -> StepArrays:
    # a numpy view keeps the tensor, and so the pinned memory, alive
    return StepArrays(
        **{field.name: torch.from_numpy(getattr(arrays, field.name)).pin_memory().numpy() for field in fields(arrays)}
    )
