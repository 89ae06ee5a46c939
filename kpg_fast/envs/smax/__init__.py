"""SMAX: the rules of JaxMARL 0.2.0 in compiled code, on the CPU or a card. ``docs/smax.md`` says what can be chosen."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch

from kpg_fast.envs.smax.env import SmaxEnv, SmaxOptions
from kpg_fast.envs.smax.scenario import Scenario, find_scenario, names, register_scenario
from kpg_fast.envs.vec_env import VecEnv
from kpg_fast.errors import UsageError, unknown_name

__all__ = ["Scenario", "SmaxEnv", "SmaxOptions", "find_scenario", "make_env", "names", "on_device", "register_scenario"]


def make_env(name: str, num_envs: int, seed: int = 0, device: str = "cpu", **options: Any) -> VecEnv:
    """Build a batch of SMAX games.

    Args:
        name: a scenario of :func:`names`, or any army in SMAC's letters, e.g. ``2s3z_vs_9h``.
        num_envs: how many games are played together.
        seed: of every random number.
        device: ``cpu``, or ``cuda``, where everything that is read and written are tensors on the card.
        options: fields of :class:`SmaxOptions`.

    Raises:
        UsageError: an unknown name, option or device.
    """
    known = [field.name for field in fields(SmaxOptions)]
    for option in options:
        if option not in known:
            raise unknown_name("SMAX option", option, known)
    if device not in ("cpu", "cuda"):
        raise UsageError(f"SMAX runs on device 'cpu' or 'cuda', not {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("SMAX on device 'cuda': torch finds no card")
    env = SmaxEnv(find_scenario(name), num_envs, seed, SmaxOptions(**options))
    return env if device == "cpu" else on_device([env], torch.device(device))


def on_device(games: Sequence[SmaxEnv], device: torch.device) -> VecEnv:
    """Games of several seeds moved to a card, side by side; see :class:`~kpg_fast.envs.smax.device.SmaxOnCard`."""
    from kpg_fast.envs.smax.device import SmaxOnCard  # here, because it imports numba-cuda

    return SmaxOnCard(games, device)
