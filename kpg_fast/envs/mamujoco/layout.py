"""A row of features: every number of a simulation that observations, state and reward read, in float64.

``[qpos | qvel | further fields of MjData | derived numbers | 1 | 0]``; the 0 is what padding reads, the 1 a one-hot.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

_SIZES = {
    "cinert": ("nbody", 10),
    "cvel": ("nbody", 6),
    "cfrc_ext": ("nbody", 6),
    "qfrc_actuator": ("nv", 1),
    "xpos": ("nbody", 3),
    "xipos": ("nbody", 3),
    "ten_J": ("nJten", 1),
    "ten_length": ("ntendon", 1),
    "ten_velocity": ("ntendon", 1),
}
BODY_FIELDS = ("cinert", "cvel", "cfrc_ext")
# Reacher's only: sine and cosine of the arm's two angles, and the way from the target to the fingertip.
_DERIVED = {"sine": 2, "cosine": 2, "tip": 3}


class Reading(NamedTuple):
    """One number: an entry of a field, clipped to [-limit, limit]."""

    field: str
    entry: int
    limit: float = float("inf")


class Layout:
    """Where each field lies in a row of features."""

    def __init__(self, model: Any, fields: Sequence[str], derived: bool = False) -> None:
        sizes = {"qpos": int(model.nq), "qvel": int(model.nv)}
        for name in fields:
            count, each = _SIZES[name]
            sizes[name] = int(getattr(model, count)) * each
        if derived:
            sizes.update(_DERIVED)
        self.sizes = sizes
        self.start: dict[str, int] = {}
        end = 0
        for name, size in sizes.items():
            self.start[name] = end
            end += size
        self.one, self.zero = end, end + 1
        self.size = end + 2

    def __getitem__(self, field: str) -> slice:
        return slice(self.start[field], self.start[field] + self.sizes[field])

    def index(self, reading: Reading) -> int:
        """Where a reading's number lies; negative entries count from the end of its field."""
        size = self.sizes[reading.field]
        if not -size <= reading.entry < size:
            raise IndexError(f"{reading} lies outside its field of {size} numbers")
        return self.start[reading.field] + reading.entry % size


def body_readings(field: str, body: int, limit: float = float("inf")) -> tuple[Reading, ...]:
    """All numbers that a body field holds of one body."""
    each = _SIZES[field][1]
    return tuple(Reading(field, body * each + offset, limit) for offset in range(each))
