"""The options of a MAMuJoCo environment."""

from dataclasses import dataclass, fields
from typing import Any

from kpg_fast.envs.mamujoco.observation import MODES
from kpg_fast.errors import UsageError, unknown_name

BACKENDS = ("auto", "c", "python")


@dataclass(frozen=True)
class Options:
    """What may be given to ``make`` besides name, number, seed and device."""

    observation: str = "mamujoco_v1"
    """One of ``mamujoco_v1``, ``harl``, ``facmac``; see `kpg_fast.envs.mamujoco.observation`."""
    agent_obsk: int = 1
    """How many links away an agent sees joints that are not its own (``mamujoco_v1`` and ``facmac``)."""
    threads: int = 0
    """Threads of the stepper; 0: one for each CPU this process may use, at most one for each environment."""
    first_env: int = 0
    """Index of the first environment, so that groups of one batch have the episodes of the whole."""
    max_episode_steps: int = 0
    """Steps after which an episode is truncated; 0: Gymnasium's limit (1000; Reacher 50, Pusher 100)."""
    contact_forces: str = "auto"
    """``c``: on the batch's threads; ``python``: documented Python API alone; ``auto``: c where it works."""

    @classmethod
    def parse(cls, given: dict[str, Any]) -> "Options":
        """Build from keyword arguments.

        Raises:
            UsageError: an unknown option, with the nearest name, or a value that is not allowed.
        """
        known = {field.name: type(field.default) for field in fields(cls)}
        for name, value in given.items():
            if name not in known:
                raise unknown_name("option of MAMuJoCo", name, known)
            if not isinstance(value, known[name]) or isinstance(value, bool):
                raise UsageError(f"option {name} is of type {known[name].__name__}, got {value!r}")
        return cls(**given)

    def __post_init__(self) -> None:
        for name, known in (("observation", MODES), ("contact_forces", BACKENDS)):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        for name in ("agent_obsk", "threads", "first_env", "max_episode_steps"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative, got {getattr(self, name)}")
