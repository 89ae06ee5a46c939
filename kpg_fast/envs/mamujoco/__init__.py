"""MAMuJoCo: one robot, several agents, each moving some of its joints (Peng et al., NeurIPS 2021; Gymnasium-Robotics).

``make_env("HalfCheetah-2x3", num_envs=64, seed=0)``; names are listed by :func:`names`. See docs/mamujoco.md.
"""

from typing import Any

from kpg_fast.envs.mamujoco.catalog import names
from kpg_fast.envs.mamujoco.doctor import capabilities, diagnose
from kpg_fast.envs.mamujoco.env import MamujocoEnv
from kpg_fast.envs.mamujoco.options import Options
from kpg_fast.envs.mamujoco.overlap import in_groups, make_groups, step_buffers
from kpg_fast.errors import unknown_name

__all__ = [
    "MamujocoEnv",
    "Options",
    "capabilities",
    "diagnose",
    "in_groups",
    "make_env",
    "make_groups",
    "names",
    "step_buffers",
]


def make_env(name: str, num_envs: int, seed: int = 0, device: str = "cpu", **options: Any) -> MamujocoEnv:
    """Build a batch of environments.

    Args:
        name: ``scenario-agent_conf``, e.g. ``HalfCheetah-2x3`` or ``Humanoid-9|8``.
        num_envs: E.
        seed: the same seed gives the same episodes, whatever the batch or the number of threads.
        device: of the learner. Physics runs on the CPU either way and writes to host memory.
        options: see `Options`.

    Raises:
        UsageError: unknown name, device or option, ``num_envs < 1``, or a package is missing.
    """
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise unknown_name("device", device, ("cpu", "cuda"))
    return MamujocoEnv(name, num_envs, seed, Options.parse(options))
