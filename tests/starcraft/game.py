"""The protocol side of the stand-in: a request in, a response out, with the states the game has."""

import random
import time
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from s2clientprotocol import raw_pb2, sc2api_pb2

from starcraft.combat import Battle, Unit
from starcraft.faults import LOOP_LIMIT, Faults
from starcraft.install import VERSIONS
from starcraft.units import BY_ID, EMPTY, EMPTY_MAP, FIRST_COPY_ID, MAPS, PLAYABLE, SIZE, V2_COPIES

LAUNCHED, INIT_GAME, IN_GAME, ENDED = 1, 2, 3, 5
MOVE, ATTACK, STOP, HEAL = 16, 23, 4, 386
# pathing grids have one bit a cell from this build on, one byte (255: blocked) before
FIRST_BUILD_WITH_BITS = 70154


class Crash(Exception):
    """The process shall die now."""


class Hang(Exception):
    """The process shall never answer again."""


class Game:
    """One StarCraft II process."""

    def __init__(self, version: str, faults: Faults) -> None:
        self.version, self.build = version, VERSIONS[version]
        self.faults = faults
        self.status = LAUNCHED
        self.played = False
        self.steps = 0
        self.limit = LOOP_LIMIT
        self._handlers: dict[str, Callable[[Any, Any], None]] = {
            "ping": self._ping,
            "create_game": self._create,
            "join_game": self._join,
            "game_info": self._info,
            "data": self._data,
            "observation": self._observe,
            "action": self._act,
            "step": self._step,
            "debug": self._debug,
            "save_replay": self._replay,
        }

    def answer(self, message: bytes) -> bytes | None:
        """The bytes to send back; None where nothing must be sent (quit)."""
        request = sc2api_pb2.Request.FromString(message)
        kind = request.WhichOneof("request")
        if kind == "quit":
            return None
        self.played = True
        response = sc2api_pb2.Response()
        if request.HasField("id"):
            response.id = request.id
        fault = None
        if kind == "step":
            self.steps += 1
            fault = self.faults.find("crash", "hang", "error", "garbage", "close", at=self.steps)
        if fault:
            damaged = self._damage(fault["kind"], response)
            if damaged is not None:
                return damaged
        elif kind in self._handlers:
            self._handlers[kind](getattr(request, kind), response)
        else:
            response.error.append(f"The stand-in does not know {kind}")
        response.status = self.status
        return response.SerializeToString()

    def _damage(self, kind: str, response: sc2api_pb2.Response) -> bytes | None:
        if kind == "crash":
            raise Crash
        if kind == "hang":
            raise Hang
        if kind == "garbage":
            return b"\xff\xfe\xfd no message"
        if kind == "close":
            return b"close"
        response.error.append("The stand-in was told to fail")
        return None

    def _ping(self, request: Any, response: Any) -> None:
        ping = response.ping
        ping.game_version = f"stand-in {self.version}"
        ping.data_version, ping.data_build, ping.base_build = "0" * 32, self.build, self.build

    def _create(self, request: Any, response: Any) -> None:
        response.create_game.SetInParent()
        name = PurePath(request.local_map.map_path).stem
        self.faults.enter_map(name)
        if not request.local_map.map_data or (name not in MAPS and name != EMPTY_MAP) or self.faults.find("no_game"):
            response.create_game.error = sc2api_pb2.ResponseCreateGame.InvalidMapData
            response.create_game.error_details = f"no map {name}"
            return
        if fault := self.faults.find("loop_limit"):
            self.limit = fault["loops"]
        self.slow = self.faults.find("slow")
        partial = self.faults.find("partial")
        self.spawn_delay = partial["loops"] if partial else 0
        self.layout = MAPS.get(name, EMPTY)
        self.seed = request.random_seed
        if name == EMPTY_MAP:
            copies = {unit: FIRST_COPY_ID + i for i, unit in enumerate(V2_COPIES)}
        else:
            copies = {
                unit: FIRST_COPY_ID + i for i, unit in enumerate(sorted({unit for unit, _ in self.layout.allies}))
            }
        self.copies = copies
        self.names = {unit_type: unit for unit, unit_type in copies.items()}
        self.status = INIT_GAME

    def _join(self, request: Any, response: Any) -> None:
        if self.status != INIT_GAME or not request.options.raw:
            response.error.append("join_game: no game to join, or not raw")
            return
        response.join_game.player_id = 1
        self.sleeps = random.Random(self.seed + 1)
        self.battle = Battle(self.layout, self.seed, self.copies, self.spawn_delay)
        self.status = IN_GAME

    def _info(self, request: Any, response: Any) -> None:
        info = response.game_info
        info.map_name = "stand-in"
        raw = info.start_raw
        raw.map_size.x = raw.map_size.y = SIZE
        raw.playable_area.p0.x, raw.playable_area.p0.y, raw.playable_area.p1.x, raw.playable_area.p1.y = PLAYABLE
        cells = [cell for row in self.battle.open for cell in row]
        raw.pathing_grid.size.x = raw.pathing_grid.size.y = SIZE
        if self.build >= FIRST_BUILD_WITH_BITS:
            raw.pathing_grid.bits_per_pixel = 1
            bits = int("".join("1" if cell else "0" for cell in cells), 2)
            raw.pathing_grid.data = bits.to_bytes(SIZE * SIZE // 8, "big")
        else:
            raw.pathing_grid.bits_per_pixel = 8
            rows = reversed(self.battle.open)
            raw.pathing_grid.data = bytes(0 if cell else 255 for row in rows for cell in row)
        raw.terrain_height.bits_per_pixel = 8
        raw.terrain_height.size.x = raw.terrain_height.size.y = SIZE
        raw.terrain_height.data = bytes((7 * x + 3 * y) % 256 for y in range(SIZE) for x in range(SIZE))

    def _data(self, request: Any, response: Any) -> None:
        for unit_id in range(FIRST_COPY_ID + len(self.copies)):
            kind = BY_ID.get(unit_id)
            response.data.units.add(unit_id=unit_id, name=kind.name if kind else f"unit{unit_id}")

    def _act(self, request: Any, response: Any) -> None:
        if not self._running(response):
            return
        results = response.action.result
        for action in request.actions:
            command = action.action_raw.unit_command
            for tag in command.unit_tags:
                unit = self.battle.by_tag.get(tag)
                if unit is not None and unit.owner == 1:
                    unit.order = self._order(command)
                results.append(1 if unit is not None else 2)
        response.action.SetInParent()

    def _order(self, command: raw_pb2.ActionRawUnitCommand) -> tuple[Any, ...] | None:
        if command.ability_id == MOVE:
            return ("move", command.target_world_space_pos.x, command.target_world_space_pos.y)
        target = self.battle.by_tag.get(command.target_unit_tag)
        if target is None or command.ability_id not in (ATTACK, HEAL):
            return None
        return ("attack" if command.ability_id == ATTACK else "heal", target)

    def _step(self, request: Any, response: Any) -> None:
        if not self._running(response):
            return
        if self.slow:
            time.sleep(self.sleeps.uniform(*self.slow["seconds"]))
        for _ in range(max(1, request.count)):
            if self.battle.now >= self.limit:
                self.status = ENDED
                break
            self.battle.loop()
        response.step.simulation_loop = self.battle.now

    def _debug(self, request: Any, response: Any) -> None:
        if not self._running(response):
            return
        response.debug.SetInParent()
        for command in request.debug:
            kind = command.WhichOneof("command")
            if kind == "kill_unit":
                self.battle.kill(list(command.kill_unit.tag))
            elif kind == "create_unit":
                create = command.create_unit
                known = BY_ID.get(create.unit_type)
                name = known.name if known else self.names.get(create.unit_type, "marine")
                for _ in range(create.quantity):
                    late = self.spawn_delay * (1 + len(self.battle.waiting))
                    self.battle.create(name, create.unit_type, create.owner, create.pos.x, create.pos.y, late)

    def _replay(self, request: Any, response: Any) -> None:
        response.save_replay.data = b"no replay"

    def _running(self, response: Any) -> bool:
        if self.status == IN_GAME:
            return True
        response.error.append("Game has already ended" if self.status == ENDED else "Not in a game")
        return False

    def _observe(self, request: Any, response: Any) -> None:
        if self.status not in (IN_GAME, ENDED):
            response.error.append("Not in a game")
            return
        answer = response.observation
        if self.status == ENDED:
            answer.player_result.add(player_id=1, result=2)
        observation = answer.observation
        observation.game_loop = self.battle.now
        common = observation.player_common
        common.player_id, common.food_cap, common.minerals, common.vespene = 1, 100, 0, 0
        common.army_count = len(self.battle.units)
        raw = observation.raw_data
        raw.player.camera.x, raw.player.camera.y = 16.0, 16.0
        for grid, depth in ((raw.map_state.visibility, 8), (raw.map_state.creep, 1)):
            grid.bits_per_pixel = depth
            grid.size.x = grid.size.y = SIZE
            grid.data = bytes(SIZE * SIZE * depth // 8)
        add = raw.units.add
        for unit in self.battle.units:
            _fill(add(), unit)


def _fill(raw: raw_pb2.Unit, unit: Unit) -> None:
    """The fields the game sends for a unit that is in sight."""
    kind = unit.kind
    mine = unit.owner == 1
    raw.display_type = 1
    raw.alliance = 1 if mine else 4
    raw.tag = unit.tag
    raw.unit_type = unit.unit_type
    raw.owner = unit.owner
    raw.pos.x, raw.pos.y, raw.pos.z = unit.x, unit.y, 12.0
    raw.facing, raw.radius, raw.build_progress = 0.5, kind.radius, 1.0
    raw.cloak = 3
    raw.is_selected = raw.is_blip = raw.is_burrowed = False
    raw.is_on_screen = True
    raw.is_flying = kind.flying
    raw.health, raw.health_max = unit.health, kind.health
    if kind.shield:
        raw.shield, raw.shield_max = unit.shield, kind.shield
    if kind.energy:
        raw.energy, raw.energy_max = unit.energy, kind.energy
    if mine:
        raw.is_powered = raw.is_active = False
        raw.weapon_cooldown = unit.cooldown
        order = unit.order
        if order is not None:
            entry = raw.orders.add()
            if order[0] == "move":
                entry.ability_id = MOVE
                entry.target_world_space_pos.x, entry.target_world_space_pos.y = order[1], order[2]
            else:
                entry.ability_id, entry.target_unit_tag = ATTACK, order[1].tag
