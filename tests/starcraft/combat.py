"""Simple unit combat: move, shoot, die, respawn. Only + - * / and sqrt, so every machine gets the same floats."""

import random
from math import sqrt

from starcraft.units import LOOPS_PER_SECOND, OPEN_COLUMNS, SIZE, UNITS, Map, UnitType

ACQUIRE_RANGE = 9.0
SCAN_EVERY = 4
SHIELD_DELAY = 160
HEAL_PER_LOOP = 12.6 / LOOPS_PER_SECOND
HEALTH_PER_ENERGY = 3.0
ENERGY_PER_LOOP = 0.5625 / LOOPS_PER_SECOND


class Unit:
    """A living unit. ``order`` is None, ("move", x, y), ("attack", unit) or ("heal", unit)."""

    __slots__ = (
        "cooldown",
        "energy",
        "goal",
        "health",
        "hit_at",
        "kind",
        "order",
        "owner",
        "shield",
        "step",
        "tag",
        "target",
        "unit_type",
        "x",
        "y",
    )

    def __init__(self, tag: int, kind: UnitType, unit_type: int, owner: int, x: float, y: float) -> None:
        self.tag, self.kind, self.unit_type, self.owner = tag, kind, unit_type, owner
        self.x, self.y = x, y
        self.health, self.shield, self.energy = kind.health, kind.shield, kind.energy / 4
        self.cooldown = 0.0
        self.step = kind.speed / LOOPS_PER_SECOND
        self.order: tuple | None = None
        self.target: Unit | None = None
        self.goal: tuple[float, float] | None = None
        self.hit_at = -SHIELD_DELAY


class Battle:
    """The units on a map and what a game loop does to them."""

    def __init__(self, layout: Map, seed: int, copy_ids: dict[str, int], spawn_delay: int = 0) -> None:
        self.layout = layout
        self.random = random.Random(seed)
        self.copy_ids = copy_ids
        self.spawn_delay = spawn_delay
        self.now = 0
        self.units: list[Unit] = []
        self.by_tag: dict[int, Unit] = {}
        self.waiting: list[tuple[int, Unit]] = []
        self.next_tag = 0x100000001
        low, high = layout.open_rows
        self.open = [
            [low <= y <= high and OPEN_COLUMNS[0] <= x <= OPEN_COLUMNS[1] for x in range(SIZE)] for y in range(SIZE)
        ]
        self._respawn()

    def create(self, name: str, unit_type: int, owner: int, x: float, y: float, loops: int = 0) -> None:
        """Put a unit on the map ``loops`` from now; units dropped on one spot are spread a little."""
        x += self.random.random() * 0.5 - 0.25
        y += self.random.random() * 0.5 - 0.25
        low, high = self.layout.open_rows
        x = min(max(x, OPEN_COLUMNS[0] + 0.1), OPEN_COLUMNS[1] + 0.9)
        y = min(max(y, low + 0.1), high + 0.9)
        unit = Unit(self.next_tag, UNITS[name], unit_type, owner, x, y)
        self.next_tag += 0x40001
        if owner == 2:
            unit.goal = self.layout.enemy_goal
        if loops:
            self.waiting.append((self.now + loops, unit))
        else:
            self._enter(unit)

    def kill(self, tags: list[int]) -> None:
        """The debug command: units die at the next loop."""
        for tag in tags:
            if tag in self.by_tag:
                self.by_tag[tag].health = 0.0

    def loop(self) -> None:
        """One game loop."""
        self.now += 1
        while self.waiting and self.waiting[0][0] <= self.now:
            self._enter(self.waiting.pop(0)[1])
        hits: list[tuple[Unit, Unit]] = []
        for unit in self.units:
            if unit.health <= 0:
                continue
            if unit.cooldown > 0:
                unit.cooldown = max(0.0, unit.cooldown - 1)
            if unit.kind.shield and unit.shield < unit.kind.shield and self.now - unit.hit_at > SHIELD_DELAY:
                unit.shield = min(unit.kind.shield, unit.shield + 2 / LOOPS_PER_SECOND)
            if unit.kind.energy:
                unit.energy = min(unit.kind.energy, unit.energy + ENERGY_PER_LOOP)
            if unit.owner == 2:
                self._think(unit)
            self._act(unit, hits)
        for source, target in hits:
            self._hit(source, target)
        self._bury()

    def _enter(self, unit: Unit) -> None:
        self.units.append(unit)
        self.by_tag[unit.tag] = unit

    def _respawn(self) -> None:
        for owner, team, starts in (
            (1, self.layout.allies, self.layout.ally_starts),
            (2, self.layout.enemies, self.layout.enemy_starts),
        ):
            for group, (name, count) in enumerate(team):
                x, y = starts[min(group, len(starts) - 1)]
                unit_type = self.copy_ids[name] if owner == 1 else UNITS[name].id
                for i in range(count):
                    row, column = i % 6 - 2.5, i // 6
                    late = self.spawn_delay * (1 + i) if self.spawn_delay and (owner == 2 or i) else 0
                    self.create(name, unit_type, owner, x + 0.9 * column + 0.7 * (group - 1), y + 0.9 * row, late)
        self.waiting.sort(key=lambda entry: (entry[0], entry[1].tag))

    def _think(self, unit: Unit) -> None:
        """An enemy: keep the target, else look around now and then, else walk on."""
        if unit.kind.energy:
            unit.order = ("heal", friend) if (friend := self._wounded(unit)) else None
            if unit.order is None and unit.goal:
                unit.order = ("move", *unit.goal)
            return
        if unit.target is not None and unit.target.health > 0:
            return
        unit.target = None
        if (self.now + unit.tag) % SCAN_EVERY == 0:
            # without a goal of its own (the empty map) an enemy is sent at whoever is nearest
            reach = ACQUIRE_RANGE if self.layout.enemies else 100.0
            unit.target = self._nearest(unit, reach)
        if unit.target is not None:
            unit.order = ("attack", unit.target)
        elif unit.goal is not None:
            unit.order = ("move", *unit.goal)
        else:
            unit.order = None

    def _nearest(self, unit: Unit, reach: float) -> Unit | None:
        best, found, x, y = reach * reach, None, unit.x, unit.y
        for other in self.units:
            if other.owner != unit.owner and other.health > 0:
                square = (other.x - x) * (other.x - x) + (other.y - y) * (other.y - y)
                if square < best:
                    best, found = square, other
        return found

    def _wounded(self, unit: Unit) -> Unit | None:
        for other in self.units:
            if other.owner == unit.owner and not other.kind.flying and 0 < other.health < other.kind.health:
                return other
        return None

    def _act(self, unit: Unit, hits: list[tuple[Unit, Unit]]) -> None:
        order = unit.order
        if order is None:
            return
        if order[0] == "move":
            if self._walk(unit, order[1], order[2], 0.0):
                unit.order = None
            return
        target: Unit = order[1]
        if target.health <= 0:
            unit.order = None
            return
        reach = unit.kind.range + unit.kind.radius + target.kind.radius
        if not self._walk(unit, target.x, target.y, reach):
            return
        if order[0] == "heal":
            missing = target.kind.health - target.health
            amount = min(HEAL_PER_LOOP, missing, unit.energy * HEALTH_PER_ENERGY)
            target.health += amount
            unit.energy -= amount / HEALTH_PER_ENERGY
        elif unit.cooldown <= 0 and unit.kind.hits:
            hits.append((unit, target))
            unit.cooldown = unit.kind.period * LOOPS_PER_SECOND + self.random.random() - 0.5

    def _walk(self, unit: Unit, x: float, y: float, reach: float) -> bool:
        """Step towards a point until within ``reach``; True where that is already so."""
        dx, dy = x - unit.x, y - unit.y
        distance = sqrt(dx * dx + dy * dy)
        if distance <= reach + 1e-9:
            return True
        step = min(unit.step, distance - reach)
        dx, dy = dx / distance * step, dy / distance * step
        for try_x, try_y in ((unit.x + dx, unit.y + dy), (unit.x + dx, unit.y), (unit.x, unit.y + dy)):
            if unit.kind.flying or self._is_open(try_x, try_y):
                unit.x = min(max(try_x, 0.5), SIZE - 0.5)
                unit.y = min(max(try_y, 0.5), SIZE - 0.5)
                break
        return False

    def _is_open(self, x: float, y: float) -> bool:
        return 0 <= x < SIZE and 0 <= y < SIZE and self.open[int(y)][int(x)]

    def _hit(self, source: Unit, target: Unit) -> None:
        victims = [target]
        if source.kind.splash:
            square = source.kind.splash * source.kind.splash
            victims = [
                unit
                for unit in self.units
                if unit.owner != source.owner and (unit.x - target.x) ** 2 + (unit.y - target.y) ** 2 <= square
            ]
        for victim in victims:
            self._damage(source.kind, victim)
        if source.kind.name == "baneling":
            source.health = 0.0

    def _damage(self, weapon: UnitType, victim: Unit) -> None:
        amount = weapon.damage + (weapon.bonus if weapon.versus and weapon.versus in victim.kind.attributes else 0)
        victim.hit_at = self.now
        for _ in range(weapon.hits):
            absorbed = min(victim.shield, amount)
            victim.shield -= absorbed
            if amount > absorbed:
                victim.health -= max(amount - absorbed - victim.kind.armor, 0.5)

    def _bury(self) -> None:
        alive = [unit for unit in self.units if unit.health > 0]
        if len(alive) == len(self.units):
            return
        self.units = alive
        self.by_tag = {unit.tag: unit for unit in alive}
        # the trigger of SMAC's maps: when nobody is left, both sides are back at once
        if not alive and not self.waiting:
            self._respawn()
