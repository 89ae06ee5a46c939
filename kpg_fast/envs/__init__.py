"""Every environment by name: ``make("smax/2s3z", num_envs=128, seed=0)``."""

from collections.abc import Sequence
from importlib import import_module
from operator import index
from typing import Any

import torch

from kpg_fast.envs.groups import Groups
from kpg_fast.envs.side_by_side import SideBySide
from kpg_fast.envs.vec_env import EnvSpec, StepArrays, UnevenVecEnv, VecEnv
from kpg_fast.errors import UsageError, unknown_name

__all__ = [
    "EnvSpec",
    "Groups",
    "SideBySide",
    "StepArrays",
    "UnevenVecEnv",
    "VecEnv",
    "families",
    "make",
    "make_in_turns",
    "make_seeds",
]

# Family -> module with `make_env(name, num_envs, seed, device, **options)` and `names()`; imported on first use, so
# that a user of one family needs the dependencies of that family alone.
_FAMILIES = {
    "smax": "kpg_fast.envs.smax",
    "toy": "kpg_fast.envs.toy",
    "mamujoco": "kpg_fast.envs.mamujoco",
    "smac": "kpg_fast.envs.smac",
}


def families() -> list[str]:
    """The names that may stand before the slash."""
    return sorted(_FAMILIES)


def make(name: str, num_envs: int, seed: int = 0, device: str = "cpu", **options: Any) -> VecEnv:
    """Build a batch of environments.

    Args:
        name: ``family/scenario``, e.g. ``smax/2s3z`` or ``smax/6z_vs_24zg``.
        num_envs: how many games are stepped together.
        seed: 0 to 2**64 - 1; the same seed gives the same episodes, whatever the batch or the number of threads.
        device: ``cpu`` or ``cuda``.
        options: passed to the family; an unknown one is a ``UsageError`` that names the nearest.

    Raises:
        UsageError: unknown family, scenario or option, ``num_envs < 1``, or a seed out of range.
    """
    num_envs, seed = _count_and_seed(num_envs, seed)
    family, _, scenario = name.partition("/")
    if family not in _FAMILIES:
        raise unknown_name("environment family", family, _FAMILIES, "Names look like smax/2s3z.")
    module = import_module(_FAMILIES[family])
    env: VecEnv = module.make_env(scenario, num_envs, seed, device, **options)
    return env


def make_in_turns(name: str, num_envs: int, seed: int, **options: Any) -> UnevenVecEnv:
    """Build environments on the CPU some of which step while a policy acts for others; arguments as of :func:`make`.

    Raises:
        UsageError: as :func:`make`, or environments that only step together.
    """
    num_envs, seed = _count_and_seed(num_envs, seed)
    family, _, scenario = name.partition("/")
    in_groups = getattr(import_module(_FAMILIES[family]), "in_groups", None) if family in _FAMILIES else None
    env = in_groups(scenario, num_envs, seed, **options) if in_groups else make(name, num_envs, seed, **options)
    if not isinstance(env, UnevenVecEnv):
        env.close()
        raise UsageError(f"{name} steps all environments together; device cpu trains on it")
    return env


def make_seeds(
    name: str, num_envs: int, seeds: Sequence[int], card: torch.device | None = None, **options: Any
) -> VecEnv:
    """Build ``num_envs`` environments of every seed, side by side, each seed's playing as if they were alone.

    Args:
        name: as of :func:`make`.
        num_envs: of one seed.
        seeds: one or more.
        card: where they are played; None: on the CPU.
        options: as of :func:`make`.

    Raises:
        UsageError: as :func:`make`, or environments that are not there on a card.
    """
    parts = [make(name, num_envs, seed, "cpu", **options) for seed in seeds]
    if card is None:
        return parts[0] if len(parts) == 1 else SideBySide(parts)
    family = import_module(_FAMILIES[name.partition("/")[0]])
    if not hasattr(family, "on_device"):
        raise UsageError(f"{name} is played on the cpu only; smax/ on a card, too")
    env: VecEnv = family.on_device(parts, card)
    return env


def _count_and_seed(num_envs: Any, seed: Any) -> tuple[int, int]:
    """Both as Python's integers."""
    count, start = _integer(num_envs), _integer(seed)
    if count is None or count < 1:
        raise UsageError(f"num_envs must be a whole number of at least 1, got {num_envs!r}")
    if start is None or not 0 <= start < 2**64:
        raise UsageError(f"seed must be a whole number from 0 to {2**64 - 1}, got {seed!r}")
    return count, start


def _integer(value: Any) -> int | None:
    """Python's or NumPy's integer; None for anything else."""
    try:
        return None if isinstance(value, bool) else index(value)
    except TypeError:
        return None
