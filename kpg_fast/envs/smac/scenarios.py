"""Which scenarios there are: the 23 maps of SMAC and the generated battles of SMACv2.

Facts are those of https://github.com/oxwhirl/smac (arXiv:1902.04043) and https://github.com/oxwhirl/smacv2
(arXiv:2212.07489), with the capability configurations of the latter's examples.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from kpg_fast.errors import UsageError, unknown_name


@dataclass(frozen=True)
class Scenario:
    """One scenario: who fights whom, for how long, and which library plays it."""

    name: str
    map_name: str
    """The library's name for it."""
    map_file: str
    n_agents: int
    n_enemies: int
    limit: int
    ally_race: str
    enemy_race: str
    type_bits: int
    map_type: str
    defaults: dict[str, Any] = field(default_factory=dict)
    """Options that differ from the library's own defaults."""

    @property
    def v2(self) -> bool:
        """Whether SMACv2 plays it."""
        return self.map_type.endswith("_gen")

    @property
    def library(self) -> str:
        """The package that plays it, and the name it is imported by."""
        return "smacv2" if self.v2 else "smac"


# map: allies, enemies, time limit, races, bits of the one-hot unit type, kind of map
_V1: dict[str, tuple[int, int, int, str, int, str]] = {
    "3m": (3, 3, 60, "TT", 0, "marines"),
    "8m": (8, 8, 120, "TT", 0, "marines"),
    "25m": (25, 25, 150, "TT", 0, "marines"),
    "5m_vs_6m": (5, 6, 70, "TT", 0, "marines"),
    "8m_vs_9m": (8, 9, 120, "TT", 0, "marines"),
    "10m_vs_11m": (10, 11, 150, "TT", 0, "marines"),
    "27m_vs_30m": (27, 30, 180, "TT", 0, "marines"),
    "MMM": (10, 10, 150, "TT", 3, "MMM"),
    "MMM2": (10, 12, 180, "TT", 3, "MMM"),
    "2s3z": (5, 5, 120, "PP", 2, "stalkers_and_zealots"),
    "3s5z": (8, 8, 150, "PP", 2, "stalkers_and_zealots"),
    "3s5z_vs_3s6z": (8, 9, 170, "PP", 2, "stalkers_and_zealots"),
    "3s_vs_3z": (3, 3, 150, "PP", 0, "stalkers"),
    "3s_vs_4z": (3, 4, 200, "PP", 0, "stalkers"),
    "3s_vs_5z": (3, 5, 250, "PP", 0, "stalkers"),
    "1c3s5z": (9, 9, 180, "PP", 3, "colossi_stalkers_zealots"),
    "2m_vs_1z": (2, 1, 150, "TP", 0, "marines"),
    "corridor": (6, 24, 400, "PZ", 0, "zealots"),
    "6h_vs_8z": (6, 8, 150, "ZP", 0, "hydralisks"),
    "2s_vs_1sc": (2, 1, 300, "PZ", 0, "stalkers"),
    "so_many_baneling": (7, 32, 100, "PZ", 0, "zealots"),
    "bane_vs_bane": (24, 24, 200, "ZZ", 2, "bane"),
    "2c_vs_64zg": (2, 64, 400, "PZ", 0, "colossus"),
}
_V2_UNITS = {
    "terran": ["marine", "marauder", "medivac"],
    "zerg": ["zergling", "baneling", "hydralisk"],
    "protoss": ["stalker", "zealot", "colossus"],
}
# how the weights .45 .45 .1 fall on the units above, and which of them may not be a team of their own
_V2_WEIGHTS = {"terran": [0.45, 0.45, 0.1], "zerg": [0.45, 0.1, 0.45], "protoss": [0.45, 0.45, 0.1]}
_V2_NEVER_ALONE = {"terran": ["medivac"], "zerg": ["baneling"], "protoss": []}
_V2_SIZES = ((5, 5), (10, 10), (10, 11), (20, 20), (20, 23))
_V2_NAME = re.compile(r"10gen_(terran|zerg|protoss)_(\d+)v(\d+)(_epo)?")
_V2_MAP_FILE = "32x32_flat"
_V2_SIZE_OF_MAP = 32


def names() -> list[str]:
    """The scenarios with published results; SMACv2 plays other team sizes too: ``10gen_terran_7v9``."""
    teams = [f"10gen_{race}_{n}v{m}" for race in _V2_UNITS for n, m in _V2_SIZES]
    return [*_V1, *teams, *(f"{team}_epo" for team in teams)]


def find(name: str) -> Scenario:
    """The scenario called ``name``; ``UsageError`` if there is none."""
    if name in _V1:
        n_agents, n_enemies, limit, races, type_bits, map_type = _V1[name]
        return Scenario(name, name, name, n_agents, n_enemies, limit, races[0], races[1], type_bits, map_type)
    match = _V2_NAME.fullmatch(name)
    if match is None:
        raise unknown_name("SMAC scenario", name, names(), "SMACv2's are called 10gen_RACE_NvM or 10gen_RACE_NvM_epo.")
    race, n_agents, n_enemies = match[1], int(match[2]), int(match[3])
    if n_agents < 1 or n_enemies < 1:
        raise UsageError(f"smac/{name}: each side needs at least one unit")
    letter = race[0].upper()
    return Scenario(
        name=name,
        map_name=f"10gen_{race}",
        map_file=_V2_MAP_FILE,
        n_agents=n_agents,
        n_enemies=n_enemies,
        limit=200,
        ally_race=letter,
        enemy_race=letter,
        type_bits=3,
        map_type=f"{race}_gen",
        defaults=_v2_defaults(race, n_agents, n_enemies, hard_to_see=match[4] is not None),
    )


def _v2_defaults(race: str, n_agents: int, n_enemies: int, hard_to_see: bool) -> dict[str, Any]:
    team = {
        "dist_type": "weighted_teams",
        "unit_types": _V2_UNITS[race],
        "weights": _V2_WEIGHTS[race],
        "exception_unit_types": _V2_NEVER_ALONE[race],
        "observe": True,
    }
    starts = {"dist_type": "surrounded_and_reflect", "p": 0.5, "map_x": _V2_SIZE_OF_MAP, "map_y": _V2_SIZE_OF_MAP}
    options: dict[str, Any] = {
        "obs_own_pos": True,
        "use_unit_ranges": True,
        "min_attack_range": 2,
        "capability_config": {
            "n_units": n_agents,
            "n_enemies": n_enemies,
            "team_gen": team,
            "start_positions": starts,
        },
    }
    if hard_to_see:
        # extended partial observability: an enemy is seen by who saw it first alone, and nothing masks a vain attack
        options |= {"prob_obs_enemy": 0.0, "action_mask": False}
    return options
