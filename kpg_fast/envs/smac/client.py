"""What a client of the game does for the supervisor; two of them: `native` and `library`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from kpg_fast.envs.vec_env import Array, StepArrays

What = Literal["ready", "stepped", "ended", "failed"]


@dataclass(frozen=True)
class Happening:
    """What became of an environment.

    ``ready``: a new game, or a reset, shows the first observation of an episode.
    ``stepped``: the step is done; where the episode ended, the next one's first observation is there.
    ``ended``: the step is done, it ended the episode, and as asked none was begun.
    ``failed``: the game is lost, ``why`` says how.
    """

    row: int
    what: What
    why: str = ""


@dataclass(frozen=True)
class Launch:
    """How a game is to be started.

    ``max_reward`` is what the rewards of this environment's earlier games were scaled by, None before the first.
    """

    row: int
    seed: int
    ports: list[int]
    folder: Path
    log: Path
    max_reward: float | None


class Client(Protocol):
    """Games of one scenario, a row each. Nothing blocks but :meth:`wait`; results are written to ``arrays``."""

    arrays: StepArrays
    facts: dict[str, str]
    """What results must name; complete once a game has been ready."""

    def start(self, launch: Launch) -> None:
        """Begin to start a game in the background."""

    def reset(self, row: int) -> None:
        """Begin a new episode in a running game."""

    def step(self, rows: list[int], action: Array, hold: Array) -> None:
        """Begin a step: ``action`` int32 [E, N]; where ``hold`` [E] is set no episode follows one that ends."""

    def wait(self, minimum: int, timeout: float) -> list[Happening]:
        """Wait for ``minimum`` steps to be done, for anything else to happen, or ``timeout`` seconds."""

    def stop(self, row: int) -> None:
        """End the row's game at once."""

    def fought(self, row: int) -> bool:
        """Whether the results of the step under way are in, be it that the episode after it has not begun yet."""

    def max_reward(self, row: int) -> float:
        """What the row's rewards are scaled by; only after it has been ready."""

    def close(self) -> None:
        """End all games."""
