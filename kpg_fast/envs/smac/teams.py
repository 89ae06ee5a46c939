"""SMACv2's random teams and starting positions, drawn as smacv2 draws them.

The same seeds give the same episodes through either client: every distribution of smacv2 has a numpy generator of its
own, which is named by its place among the library's objects (`stream`), and shuffles come from Python's `random`.
"""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kpg_fast.errors import UsageError

Positions = NDArray[np.float64]
Shuffle = Callable[[int], list[int]]

_SURROUND_OFFSET = 2.0
"""How far from the centre each diagonal ends, so that nobody is created on top of anybody else."""


def stream(seed: int, place: str) -> np.random.Generator:
    """The generator of the distribution at ``place``, e.g. ``start_positions.reflect_distribution.pos_generator``."""
    return np.random.default_rng([seed, zlib.crc32(place.encode())])


@dataclass(frozen=True)
class Episode:
    """What an episode begins with; ``hidden`` [n_agents, n_enemies] is a team's enemy mask, or None."""

    allies: list[str]
    enemies: list[str]
    ally_positions: Positions
    enemy_positions: Positions
    hidden: NDArray[np.uint8] | None = None


class Teams:
    """Draws episodes from a ``capability_config``.

    Args:
        config: as smacv2's; distributions ``weighted_teams``, ``surrounded``, ``reflect_position``,
            ``surrounded_and_reflect`` and ``mask``.
        seed: of this game.
        shuffle: `random.shuffle` of that many things, as an order.
    """

    def __init__(self, config: dict[str, Any], seed: int, shuffle: Shuffle) -> None:
        self._n, self._m = int(config["n_units"]), int(config["n_enemies"])
        self._config = {name: part for name, part in config.items() if name not in ("n_units", "n_enemies")}
        self._seed, self._shuffle = seed, shuffle
        self._streams: dict[str, np.random.Generator] = {}

    def draw(self) -> Episode:
        """The next episode."""
        drawn: dict[str, Any] = {"hidden": None}
        for name, part in self._config.items():
            if name == "team_gen":
                drawn["allies"], drawn["enemies"] = self._teams(part)
            elif name == "start_positions":
                drawn["ally_positions"], drawn["enemy_positions"] = self._positions(part)
            elif name == "enemy_mask":
                drawn["hidden"] = self._mask(part)
        return Episode(**drawn)

    def _stream(self, place: str) -> np.random.Generator:
        return self._streams.setdefault(place, stream(self._seed, place))

    def _teams(self, part: dict[str, Any]) -> tuple[list[str], list[str]]:
        allies = self._team(part, self._n)
        enemies = list(allies[: self._m])
        if self._m > self._n:
            enemies += self._team(part, self._m - self._n)
        return allies, enemies

    def _team(self, part: dict[str, Any], size: int) -> list[str]:
        never_alone = set(part.get("exception_unit_types", ()))
        units, weights = np.array(part["unit_types"]), np.array(part["weights"])
        while True:
            team = [str(name) for name in self._stream("team_gen").choice(units, size=(size,), p=weights)]
            team = [team[k] for k in self._shuffle(size)]
            if not set(team) <= never_alone:
                return team

    def _positions(self, part: dict[str, Any]) -> tuple[Positions, Positions]:
        kind, place = part["dist_type"], "start_positions"
        size = np.array([part["map_x"], part["map_y"]], np.float64)
        if kind == "surrounded_and_reflect":
            surrounded = self._stream(place).random() > part["p"]
            kind = "surrounded" if surrounded else "reflect_position"
            place += ".surrounded_distribution" if surrounded else ".reflect_distribution"
        return self._surrounded(place, size) if kind == "surrounded" else self._reflected(place, size)

    def _reflected(self, place: str, size: Positions) -> tuple[Positions, Positions]:
        """Allies anywhere in the west, enemies at their mirror images, the rest of the enemies anywhere in the east."""
        low, middle = np.zeros(2), size * (0.5, 1.0)
        allies = self._stream(f"{place}.pos_generator").uniform(low, middle - (1, 0), (self._n, 2))
        enemies = allies[: self._m] * (-1, 1) + (size[0], 0)
        if self._m > self._n:
            others = self._stream(f"{place}.enemy_pos_generator").uniform((middle[0], 0), size, (self._m - self._n, 2))
            enemies = np.concatenate([enemies, others])
        return allies, enemies

    def _surrounded(self, place: str, size: Positions) -> tuple[Positions, Positions]:
        """Allies at the centre, enemies in one to four groups on its diagonals."""
        rng, centre = self._stream(place), size / 2
        groups = int(rng.integers(1, 5))
        members = rng.multinomial(self._m, np.ones(groups) / groups)
        nearness = rng.uniform(size=(groups,))
        corners = np.array([(0, 0), (0, 1), (1, 1), (1, 0)], np.float64)
        chosen = corners[rng.choice(np.arange(4), size=(groups,), replace=False)]
        near = centre + (2 * chosen - 1) * _SURROUND_OFFSET
        points = near * nearness[:, None] + chosen * size * (1 - nearness[:, None])
        return np.tile(centre, (self._n, 1)), np.repeat(points, members, axis=0)

    def _mask(self, part: dict[str, Any]) -> NDArray[np.uint8]:
        hidden = float(part["mask_probability"])
        # smacv2 draws 0 with this probability, and what is 1 is hidden
        drawn = self._stream("enemy_mask").choice([0, 1], size=(self._n, self._m), p=[hidden, 1 - hidden])
        return drawn.astype(np.uint8)


_KNOWN = {
    "team_gen": ("weighted_teams",),
    "start_positions": ("surrounded", "reflect_position", "surrounded_and_reflect"),
    "enemy_mask": ("mask",),
}


def check(config: dict[str, Any]) -> None:
    """Raise ``UsageError`` where `Teams` cannot draw from ``config`` as smacv2 would."""
    for name in ("team_gen", "start_positions"):
        if name not in config:
            raise UsageError(f"capability_config without {name} is the library's own: use client='smac'")
    for name, part in config.items():
        if name in _KNOWN:
            _check_kind(name, part["dist_type"], _KNOWN[name])


def _check_kind(name: str, kind: str, known: Iterable[str]) -> None:
    if kind not in known:
        raise UsageError(f"{name} of kind {kind!r} is the library's own: use client='smac'")
