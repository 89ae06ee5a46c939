"""Units and maps of the stand-in. One second of the game's "normal" speed is 16 loops.

Map layouts (where a side starts, where the enemies are sent) follow the SMAC maps; walls are only hinted at.
"""

from dataclasses import dataclass

LOOPS_PER_SECOND = 16


@dataclass(frozen=True)
class UnitType:
    """A unit: ``speed`` per second, ``period`` between shots in seconds, ``bonus`` damage against ``versus``."""

    name: str
    id: int
    health: float
    shield: float
    armor: float
    speed: float
    radius: float
    attributes: str
    damage: float
    bonus: float
    versus: str
    hits: int
    range: float
    period: float
    splash: float = 0.0
    flying: bool = False
    energy: float = 0.0


# attributes: L light, A armored, B biological, M mechanical
_TABLE = [
    UnitType("marine", 48, 45, 0, 0, 2.25, 0.375, "LB", 6, 0, "", 1, 5, 0.861),
    UnitType("marauder", 51, 125, 0, 1, 2.25, 0.5625, "AB", 10, 10, "A", 1, 6, 1.5),
    UnitType("medivac", 54, 150, 0, 1, 2.5, 0.75, "AM", 0, 0, "", 0, 4, 0, flying=True, energy=200),
    UnitType("stalker", 74, 80, 80, 1, 2.953, 0.625, "AM", 13, 5, "A", 1, 6, 1.87),
    UnitType("zealot", 73, 100, 50, 1, 2.25, 0.5, "LB", 8, 0, "", 2, 0.1, 1.2),
    UnitType("colossus", 4, 200, 150, 1, 2.25, 1.0, "AM", 10, 5, "L", 2, 7, 1.5, splash=1.4),
    UnitType("hydralisk", 107, 80, 0, 0, 2.25, 0.625, "LB", 12, 0, "", 1, 5, 0.825),
    UnitType("zergling", 105, 35, 0, 0, 2.953, 0.375, "LB", 5, 0, "", 1, 0.1, 0.696),
    UnitType("baneling", 9, 30, 0, 0, 2.5, 0.375, "B", 16, 19, "L", 1, 0.25, 1.0, splash=2.2),
    UnitType("spinecrawler", 98, 300, 0, 2, 0.0, 1.125, "AB", 25, 5, "A", 1, 7, 1.85),
]
UNITS = {unit.name: unit for unit in _TABLE}
BY_ID = {unit.id: unit for unit in _TABLE}

# SMAC's allied copies have ids past the game's own: on v1 maps the ones a map needs, in alphabetical order; on v2's map
# always these nine, at the end of the unit table.
FIRST_COPY_ID = 1970
V2_COPIES = ["baneling", "colossus", "hydralisk", "marauder", "marine", "medivac", "stalker", "zealot", "zergling"]

Team = list[tuple[str, int]]
Point = tuple[float, float]


@dataclass(frozen=True)
class Map:
    """Two teams, the points they start at (one a group, or one for all) and where the enemies attack-move to."""

    allies: Team
    enemies: Team
    ally_starts: list[Point]
    enemy_starts: list[Point]
    enemy_goal: Point | None
    open_rows: tuple[int, int] = (7, 24)


def _band(allies: Team, enemies: Team) -> Map:
    """The common layout: west against east on an open band."""
    return Map(allies, enemies, [(9, 16)], [(23, 16)], (9, 16))


def _mirror(team: Team) -> Map:
    return _band(team, team)


_MMM: Team = [("marauder", 2), ("marine", 7), ("medivac", 1)]
_BANES: Team = [("zergling", 20), ("baneling", 4)]
_FIELD = (2, 29)
MAPS = {
    "3m": _mirror([("marine", 3)]),
    "8m": _mirror([("marine", 8)]),
    "25m": _mirror([("marine", 25)]),
    "5m_vs_6m": _band([("marine", 5)], [("marine", 6)]),
    "8m_vs_9m": _band([("marine", 8)], [("marine", 9)]),
    "10m_vs_11m": _band([("marine", 10)], [("marine", 11)]),
    "27m_vs_30m": _band([("marine", 27)], [("marine", 30)]),
    "MMM": _mirror(_MMM),
    "MMM2": _band(_MMM, [("marauder", 3), ("marine", 8), ("medivac", 1)]),
    "2s3z": _mirror([("stalker", 2), ("zealot", 3)]),
    "3s5z": _mirror([("stalker", 3), ("zealot", 5)]),
    "3s5z_vs_3s6z": _band([("stalker", 3), ("zealot", 5)], [("stalker", 3), ("zealot", 6)]),
    "3s_vs_3z": _band([("stalker", 3)], [("zealot", 3)]),
    "3s_vs_4z": _band([("stalker", 3)], [("zealot", 4)]),
    "3s_vs_5z": _band([("stalker", 3)], [("zealot", 5)]),
    "1c3s5z": _mirror([("colossus", 1), ("stalker", 3), ("zealot", 5)]),
    "2m_vs_1z": Map(
        [("marine", 1), ("marine", 1)], [("zealot", 1)], [(13, 12), (19, 12)], [(16, 19)], (16, 12), _FIELD
    ),
    "corridor": Map([("zealot", 6)], [("zergling", 24)], [(19, 19)], [(27, 27)], (4.5, 4.5), _FIELD),
    "6h_vs_8z": Map([("hydralisk", 6)], [("zealot", 8)], [(14.6, 9.5)], [(14.4, 16.8)], (14.6, 9.5), _FIELD),
    "2s_vs_1sc": Map(
        [("stalker", 1), ("stalker", 1)], [("spinecrawler", 1)], [(11, 10), (17, 10)], [(14, 20)], None, _FIELD
    ),
    "so_many_baneling": Map([("zealot", 7)], [("baneling", 32)], [(11.5, 12)], [(26, 26)], (4.5, 4.5), _FIELD),
    "bane_vs_bane": Map(_BANES, _BANES, [(16, 11), (16, 8)], [(16, 21), (16, 24)], (16, 8), _FIELD),
    "2c_vs_64zg": Map([("colossus", 2)], [("zergling", 64)], [(16, 16)], [(16, 9)], (16, 16), _FIELD),
}
# the map of SMACv2: nothing stands on it until a client creates units
EMPTY_MAP = "32x32_flat"
EMPTY = Map([], [], [], [], None, _FIELD)

SIZE = 32
OPEN_COLUMNS = (2, 29)
PLAYABLE = (2, 4, 30, 28)  # x0, y0, x1, y1: not square, so that a client that swaps the axes is found out
