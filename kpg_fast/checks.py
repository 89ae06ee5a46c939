"""Checks of a configuration's values; the message names the value and what is allowed."""

import dataclasses
import math
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from kpg_fast.errors import UsageError, unknown_name


def check_types(config: Any) -> None:
    """Every field of type ``Literal`` holds one of its choices, every number is one, and finite, every text is text."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if get_origin(f.type) is Literal and value not in get_args(f.type):
            raise unknown_name(f.name, str(value), get_args(f.type))
        if f.type is int and type(value) is not int:
            raise UsageError(f"{f.name} = {value!r}: must be a whole number")
        if f.type is float and not (type(value) in (int, float) and math.isfinite(value)):
            raise UsageError(f"{f.name} = {value!r}: must be a finite number")
        if f.type is bool and type(value) is not bool:
            raise UsageError(f"{f.name} = {value!r}: must be true or false")
        if (f.type is str and type(value) is not str) or (f.type == str | None and type(value) not in (str, NoneType)):
            raise UsageError(f"{f.name} = {value!r}: must be text")
        if f.type == str | None and value == "":
            raise UsageError(f"{f.name} is empty")
        if f.type == tuple[str, ...] and not (type(value) is tuple and all(type(item) is str for item in value)):
            raise UsageError(f"{f.name} = {value!r}: must be a tuple of texts")


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
