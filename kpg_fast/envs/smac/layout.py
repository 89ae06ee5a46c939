"""Options of a scenario and what follows from them: sizes, unit types, what the compiled client has to know."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kpg_fast.envs.smac import teams
from kpg_fast.envs.smac.scenarios import Scenario
from kpg_fast.errors import UsageError

DIFFICULTIES = {level: number for number, level in enumerate("123456789A", start=1)}
"""The built-in opponent's levels, from very easy to cheating insanely, and their numbers in s2clientprotocol."""

# The libraries' options with their defaults.
_BOTH: dict[str, Any] = {
    "step_mul": 8,
    "move_amount": 2,
    "difficulty": "7",
    "game_version": None,
    "continuing_episode": False,
    "obs_all_health": True,
    "obs_own_health": True,
    "obs_last_action": False,
    "obs_pathing_grid": False,
    "obs_terrain_height": False,
    "obs_instead_of_state": False,
    "obs_timestep_number": False,
    "state_last_action": True,
    "state_timestep_number": False,
    "reward_sparse": False,
    "reward_only_positive": True,
    "reward_death_value": 10,
    "reward_win": 200,
    "reward_defeat": 0,
    "reward_negative_scale": 0.5,
    "reward_scale": True,
    "reward_scale_rate": 20,
}
_V2: dict[str, Any] = {
    "obs_own_pos": False,
    "conic_fov": False,
    "num_fov_actions": 12,
    "use_unit_ranges": False,
    "min_attack_range": 2,
    "fully_observable": False,
    "prob_obs_enemy": 1.0,
    "action_mask": True,
    "capability_config": {},
}
# Options only the libraries themselves act on.
_LIBRARY: dict[str, Any] = {
    "replay_dir": "",
    "replay_prefix": "",
    "window_size_x": 1920,
    "window_size_y": 1200,
    "heuristic_ai": False,
    "heuristic_rest": False,
    "debug": False,
}
_LIBRARY_V2: dict[str, Any] = {"obs_starcraft": True, "kill_unit_step_mul": 2}

# Unit types by map type: the allied copies in the order of their ids, and the enemies' ids in the game in the order of
# their one-hot. On Stalker-and-Zealot maps the two orders differ; the library keeps that for comparability.
_ALLIES = {
    "marines": ["marine"],
    "stalkers": ["stalker"],
    "zealots": ["zealot"],
    "hydralisks": ["hydralisk"],
    "colossus": ["colossus"],
    "stalkers_and_zealots": ["stalker", "zealot"],
    "colossi_stalkers_zealots": ["colossus", "stalker", "zealot"],
    "MMM": ["marauder", "marine", "medivac"],
    "bane": ["baneling", "zergling"],
}
_ENEMIES = {
    "stalkers_and_zealots": ["zealot", "stalker"],
    "colossi_stalkers_zealots": ["colossus", "stalker", "zealot"],
    "MMM": ["marauder", "marine", "medivac"],
    "bane": ["baneling", "zergling"],
    "terran_gen": ["marine", "marauder", "medivac"],
    "zerg_gen": ["zergling", "hydralisk", "baneling"],
    "protoss_gen": ["stalker", "zealot", "colossus"],
}
V2_COPIES = ["baneling", "colossus", "hydralisk", "marauder", "marine", "medivac", "stalker", "zealot", "zergling"]
"""SMACv2's allied copies are the last unit types of the game's data, in this order."""
GAME_IDS = {
    "baneling": 9,
    "colossus": 4,
    "hydralisk": 107,
    "marauder": 51,
    "marine": 48,
    "medivac": 54,
    "stalker": 74,
    "zealot": 73,
    "zergling": 105,
    "spine crawler": 98,
}
_MAX_SHIELD = {"stalker": 80.0, "zealot": 50.0, "colossus": 150.0}
# loops between shots; for a Medivac the energy it can have
_MAX_COOLDOWN = {
    "marine": 15.0,
    "marauder": 25.0,
    "medivac": 200.0,
    "stalker": 35.0,
    "zealot": 22.0,
    "colossus": 24.0,
    "hydralisk": 10.0,
    "zergling": 11.0,
    "baneling": 1.0,
}
_RANGES = {  # sight, attack
    "stalker": (10.0, 6.0),
    "zealot": (9.0, 0.1),
    "colossus": (10.0, 7.0),
    "zergling": (8.0, 0.1),
    "baneling": (8.0, 0.25),
    "hydralisk": (9.0, 5.0),
    "marine": (9.0, 5.0),
    "marauder": (10.0, 6.0),
    "medivac": (11.0, 4.0),
}
_SIGHT_RANGE, _SHOOT_RANGE = 9.0, 6.0
_MOVES, _PATHING, _HEIGHT = 4, 8, 9
_CAPABILITIES_OF_THE_LIBRARY = ("attack", "health")

TypeRow = tuple[int, int, float, float, float, float, bool]


def option_defaults(scenario: Scenario) -> dict[str, Any]:
    """The options of the library that plays the scenario, with its own defaults."""
    own, others = _known(scenario)
    return own | others


def _known(scenario: Scenario) -> tuple[dict[str, Any], dict[str, Any]]:
    if scenario.v2:
        return _BOTH | _V2, _LIBRARY | _LIBRARY_V2
    return _BOTH, _LIBRARY


@dataclass(frozen=True)
class Layout:
    """A scenario with its options. ``options`` holds every option of the library, by its name there."""

    scenario: Scenario
    options: dict[str, Any]
    bootstrap_time_limit: bool
    blank_enemies: bool

    @classmethod
    def build(
        cls, scenario: Scenario, given: Mapping[str, Any], bootstrap_time_limit: bool, blank_enemies: bool, native: bool
    ) -> "Layout":
        """Fill in the defaults; ``UsageError`` for an option that this client does not have."""
        own, others = _known(scenario)
        for name in given:
            if native and name in others and given[name] != others[name]:
                raise UsageError(f"option {name} is the library's own: use client='smac'")
        options = own | ({} if native else others) | scenario.defaults | dict(given)
        options["difficulty"] = str(options["difficulty"])
        layout = cls(scenario, options, bootstrap_time_limit or options["continuing_episode"], blank_enemies)
        layout._check(native)
        return layout

    def _check(self, native: bool) -> None:
        s, o = self.scenario, self.options
        if o["step_mul"] < 1:
            raise UsageError(f"step_mul = {o['step_mul']}: must be at least 1")
        if o["difficulty"] not in DIFFICULTIES:
            raise UsageError(f"difficulty = {o['difficulty']}: must be one of {' '.join(DIFFICULTIES)}")
        if s.v2 and o["obs_instead_of_state"]:
            raise UsageError("smacv2 has no obs_instead_of_state")
        capability, sizes = o.get("capability_config", {}), (s.n_agents, s.n_enemies)
        if (capability.get("n_units", s.n_agents), capability.get("n_enemies", s.n_enemies)) != sizes:
            raise UsageError(f"capability_config and the name smac/{s.name} disagree about the size of the teams")
        if native:
            for name in _CAPABILITIES_OF_THE_LIBRARY:
                if name in capability:
                    raise UsageError(f"capability {name!r} is the library's own: use client='smac'")
            if s.v2:
                teams.check(capability)

    @property
    def n_look(self) -> int:
        """Actions that turn an agent's field of view."""
        return int(self.options["num_fov_actions"]) if self.options.get("conic_fov") else 0

    @property
    def n_no_attack(self) -> int:
        """Actions before the first attack."""
        return 2 + _MOVES + self.n_look

    @property
    def healers(self) -> bool:
        """Whether Medivacs are among the units."""
        return self.scenario.map_type in ("MMM", "terran_gen")

    @property
    def n_actions(self) -> int:
        """Actions of an agent."""
        s = self.scenario
        heals_more = s.v2 and self.healers and s.n_agents > s.n_enemies
        return self.n_no_attack + (s.n_agents if heals_more else s.n_enemies)

    @property
    def _shields(self) -> tuple[int, int]:
        return int(self.scenario.ally_race == "P"), int(self.scenario.enemy_race == "P")

    @property
    def _extra(self) -> int:
        """Features of a unit's other capabilities (smacv2's stochastic attack and health)."""
        return sum(name in self.options.get("capability_config", {}) for name in _CAPABILITIES_OF_THE_LIBRARY)

    @property
    def obs_size(self) -> int:
        """Features an agent observes, as many as the library really returns."""
        s, o = self.scenario, self.options
        ally_shield, enemy_shield = self._shields
        if not o.get("obs_starcraft", True):
            return int(o["obs_timestep_number"])
        move = _MOVES + _PATHING * o["obs_pathing_grid"] + _HEIGHT * o["obs_terrain_height"]
        enemy = 4 + (1 + enemy_shield) * o["obs_all_health"] + s.type_bits
        ally = 4 + (1 + ally_shield) * o["obs_all_health"] + s.type_bits + self._extra
        ally += self.n_actions * o["obs_last_action"]
        own = (1 + ally_shield) * (o["obs_own_health"] or o["obs_all_health"]) + s.type_bits + self._extra
        own += 2 * o.get("obs_own_pos", False) + 2 * (self.n_look > 0)
        # smac counts the time step among the own features, leaves that one zero and appends another
        time = o["obs_timestep_number"] * (1 if s.v2 else 2)
        return int(move + enemy * s.n_enemies + ally * (s.n_agents - 1) + own + time)

    @property
    def state_size(self) -> int:
        """Features of the state."""
        s, o = self.scenario, self.options
        if o["obs_instead_of_state"]:
            return self.obs_size * s.n_agents
        ally_shield, enemy_shield = self._shields
        ally = 4 + ally_shield + s.type_bits + self._extra + 2 * (self.n_look > 0)
        enemy = 3 + enemy_shield + s.type_bits
        size = ally * s.n_agents + enemy * s.n_enemies
        return int(size + s.n_agents * self.n_actions * o["state_last_action"] + o["state_timestep_number"])

    def compiled(self) -> dict[str, Any]:
        """What `_C.SmacGames` is told."""
        s, o = self.scenario, self.options
        ally_shield, enemy_shield = self._shields
        names = [name for name in _BOTH if name not in ("difficulty", "game_version", "continuing_episode")]
        return {name: o[name] for name in names} | {
            "move_amount": float(o["move_amount"]),
            "obs_own_health": o["obs_own_health"] or o["obs_all_health"],
            "v2": s.v2,
            "n_agents": s.n_agents,
            "n_enemies": s.n_enemies,
            "n_actions": self.n_actions,
            "n_no_attack": self.n_no_attack,
            "obs_size": self.obs_size,
            "state_size": self.state_size,
            "type_bits": s.type_bits,
            "shield_ally": ally_shield,
            "shield_enemy": enemy_shield,
            "limit": s.limit,
            "healers": self.healers,
            "bootstrap_time_limit": self.bootstrap_time_limit,
            "obs_own_pos": o.get("obs_own_pos", False),
            "fully_observable": o.get("fully_observable", False),
            "action_mask": o.get("action_mask", True),
            "observe_types": o.get("capability_config", {}).get("team_gen", {}).get("observe", True),
            "blank_enemies": self.blank_enemies,
            "prob_obs_enemy": float(o.get("prob_obs_enemy", 1.0)),
            "n_fov_actions": self.n_look,
        }

    def ally_types(self) -> list[TypeRow]:
        """The allied copies in the order of their ids."""
        if not self.scenario.v2:
            return [self._type(name, k, k) for k, name in enumerate(_ALLIES[self.scenario.map_type])]
        order = _ENEMIES[self.scenario.map_type]
        return [self._type(name, k, order.index(name) if name in order else -1) for k, name in enumerate(V2_COPIES)]

    def enemy_types(self) -> list[TypeRow]:
        """The units of the game that can be enemies."""
        order = _ENEMIES.get(self.scenario.map_type, [])
        return [
            self._type(name, unit_type, order.index(name) if name in order else -1)
            for name, unit_type in GAME_IDS.items()
        ]

    def _type(self, name: str, unit_type: int, bit: int) -> TypeRow:
        sight, shoot = _SIGHT_RANGE, _SHOOT_RANGE
        if self.options.get("use_unit_ranges") and name in _RANGES:
            sight, shoot = _RANGES[name]
            shoot = max(shoot, float(self.options["min_attack_range"]))
        cooldown, shield = _MAX_COOLDOWN.get(name, 15.0), _MAX_SHIELD.get(name, 1.0)
        return unit_type, bit, shield, cooldown, sight, shoot, name == "medivac"

    def directions(self) -> list[float]:
        """Where the look actions turn to: x, y of each."""
        angles = [2 * np.pi * (k / self.n_look) for k in range(self.n_look)]
        return [float(part) for angle in angles for part in (np.cos(angle), np.sin(angle))]


def decode_pathing(bits: int, width: int, height: int, data: bytes) -> NDArray[np.uint8]:
    """The game's pathing grid as [x][y], 1 where a unit can walk.

    From 4.7 on it has one bit a cell, rows of x, the most significant bit first; before, a byte a cell, 0 where it is
    open, and rows from the top.
    """
    if bits == 1:
        return np.ascontiguousarray(np.unpackbits(np.frombuffer(data, np.uint8)).reshape(height, width).T)
    blocked = np.frombuffer(data, np.uint8).reshape(height, width)[::-1].T != 0
    return np.ascontiguousarray((~blocked).astype(np.uint8))


def decode_height(width: int, height: int, data: bytes) -> NDArray[np.float64]:
    """The game's terrain height as [x][y], from 0 to 1."""
    rows = np.frombuffer(data, np.uint8).reshape(height, width)[::-1].T
    return np.ascontiguousarray(rows / 255)
