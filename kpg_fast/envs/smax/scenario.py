"""Which units fight: SMAX's scenarios by name, and any army written with SMAC's letters."""

import re
from dataclasses import dataclass

from kpg_fast.errors import UsageError, unknown_name

UNIT_NAMES = ("marine", "marauder", "stalker", "zealot", "zergling", "hydralisk")
# SMAC's letters. Longest first, so that "zg" is not read as "z" and a stray "g".
LETTERS = {"zg": 4, "m": 0, "M": 1, "s": 2, "z": 3, "h": 5}
LETTERS_HINT = (
    "A scenario is ALLIES or ALLIES_vs_ENEMIES with counts and letters "
    "(m marine, M marauder, s stalker, z zealot, h hydralisk, zg zergling), e.g. 2s3z, 2s3z_vs_9h, 6z_vs_24zg; "
    "or smacv2_N_units."
)
MAX_UNITS = 1024  # a unit is a thread of one CUDA block

_GROUP = re.compile(r"([1-9][0-9]*)(zg|[mMszh])")
_SMACV2 = re.compile(r"smacv2_([1-9][0-9]*)_units")


@dataclass(frozen=True)
class Scenario:
    """Two armies and how they are placed.

    ``ally_types`` and ``enemy_types`` index :data:`UNIT_NAMES`. ``random_positions`` and ``random_types`` choose
    SMACv2's start positions (surround or reflect) and unit types (drawn at every reset; enemies mirror the allies).
    """

    name: str
    ally_types: tuple[int, ...]
    enemy_types: tuple[int, ...]
    random_positions: bool = False
    random_types: bool = False

    def __post_init__(self) -> None:
        units = self.ally_types + self.enemy_types
        if not self.ally_types or not self.enemy_types:
            raise UsageError(f"scenario {self.name!r}: both teams need at least one unit")
        _check_size(self.name, len(units))
        if not all(0 <= unit < len(UNIT_NAMES) for unit in units):
            raise UsageError(f"scenario {self.name!r}: unit types must be 0..{len(UNIT_NAMES) - 1}, got {units}")

    @property
    def num_allies(self) -> int:
        """Units of the team that learns."""
        return len(self.ally_types)

    @property
    def num_enemies(self) -> int:
        """Units of the other team."""
        return len(self.enemy_types)

    @property
    def num_units(self) -> int:
        """Units of both teams."""
        return self.num_allies + self.num_enemies


NAMED = [
    *("3m", "8m", "25m", "2s3z", "3s5z", "5m_vs_6m", "10m_vs_11m", "27m_vs_30m", "3s5z_vs_3s6z", "3s_vs_5z"),
    *("6h_vs_8z", "smacv2_5_units", "smacv2_10_units", "smacv2_20_units"),
]

_registered: dict[str, Scenario] = {}


def register_scenario(scenario: Scenario) -> None:
    """Make a scenario available under its own name.

    Raises:
        UsageError: the name already means something else.
    """
    taken = _registered.get(scenario.name) or _parse(scenario.name)
    if taken is not None and taken != scenario:
        raise UsageError(f"scenario name {scenario.name!r} is taken")
    _registered[scenario.name] = scenario


def names() -> list[str]:
    """JaxMARL's fourteen scenarios and the registered ones; any other army can be written as a name."""
    return NAMED + sorted(_registered)


def find_scenario(name: str) -> Scenario:
    """Read a scenario's name.

    Raises:
        UsageError: with the letters and the nearest names.
    """
    scenario = _registered.get(name) or _parse(name)
    if scenario is None:
        raise unknown_name("SMAX scenario", name, names(), LETTERS_HINT)
    return scenario


def _parse(name: str) -> Scenario | None:
    random = _SMACV2.fullmatch(name)
    if random:
        marines = _army(name, [(random[1], "m")])
        return Scenario(name, marines, marines, random_positions=True, random_types=True)
    allies, separator, enemies = name.partition("_vs_")
    ally_types = _parse_army(name, allies)
    enemy_types = _parse_army(name, enemies) if separator else ally_types
    if not ally_types or not enemy_types:
        return None
    return Scenario(name, ally_types, enemy_types)


def _parse_army(name: str, text: str) -> tuple[int, ...]:
    if not re.fullmatch(f"(?:{_GROUP.pattern})+", text):
        return ()
    return _army(name, _GROUP.findall(text))


def _army(name: str, groups: list[tuple[str, str]]) -> tuple[int, ...]:
    """The unit types of groups (count, letter), counted before they are laid out: a count may be of any size."""
    _check_size(name, sum(int(count) for count, _ in groups))
    return tuple(LETTERS[letter] for count, letter in groups for _ in range(int(count)))


def _check_size(name: str, units: int) -> None:
    if units > MAX_UNITS:
        raise UsageError(f"scenario {name!r} has {units} units; at most {MAX_UNITS} fit in a game")
