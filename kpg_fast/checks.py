"""Checks of a configuration's values; the message names the value and what is allowed."""

import dataclasses
from typing import Any, Literal, get_args, get_origin

from kpg_fast.errors import UsageError, unknown_name


def check_choices(config: Any) -> None:
    """Every field of type ``Literal`` holds one of its choices."""
    for f in dataclasses.fields(config):
        if get_origin(f.type) is Literal and getattr(config, f.name) not in get_args(f.type):
            raise unknown_name(f.name, str(getattr(config, f.name)), get_args(f.type))


def at_least(config: Any, least: int, *names: str) -> None:
    """These fields are not below ``least``."""
    for name in names:
        if not getattr(config, name) >= least:
            raise UsageError(f"{name} = {getattr(config, name)}: must be at least {least}")


def above_zero(config: Any, *names: str) -> None:
    """These fields are above 0."""
    for name in names:
        if not getattr(config, name) > 0:
            raise UsageError(f"{name} = {getattr(config, name)}: must be above 0")


def up_to_one(config: Any, *names: str) -> None:
    """These fields lie in [0, 1]."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f"{name} = {getattr(config, name)}: must lie in [0, 1]")
