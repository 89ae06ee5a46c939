"""SMAX on the CPU: the rules of JaxMARL 0.2.0 in compiled code. ``docs/smax.md`` says what can be chosen."""

from dataclasses import fields
from typing import Any

from kpg_fast.envs.smax.env import SmaxEnv, SmaxOptions
from kpg_fast.envs.smax.scenario import Scenario, find_scenario, names, register_scenario
from kpg_fast.errors import UsageError, unknown_name

__all__ = ["Scenario", "SmaxEnv", "SmaxOptions", "find_scenario", "make_env", "names", "register_scenario"]


def make_env(name: str, num_envs: int, seed: int = 0, device: str = "cpu", **options: Any) -> SmaxEnv:
    """Build a batch of SMAX games.

    Args:
        name: a scenario of :func:`names`, or any army in SMAC's letters, e.g. ``2s3z_vs_9h``.
        num_envs: how many games are played together.
        seed: of every random number.
        device: ``cpu``.
        options: fields of :class:`SmaxOptions`.

    Raises:
        UsageError: an unknown name, option or device.
    """
    known = [field.name for field in fields(SmaxOptions)]
    for option in options:
        if option not in known:
            raise unknown_name("SMAX option", option, known)
    if device != "cpu":
        raise UsageError(f"SMAX runs on device 'cpu', not {device!r}")
    return SmaxEnv(find_scenario(name), num_envs, seed, SmaxOptions(**options))
