"""Our own client: many games in this process, spoken to in compiled code (csrc/smac_*.cpp).

Python starts the games, shakes hands and creates the battles, with s2clientprotocol's messages; from then on
`_C.SmacGames` holds the conversation.
"""

import os
import random
import socket
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import websocket
from numpy.typing import NDArray
from s2clientprotocol import common_pb2, sc2api_pb2

from kpg_fast.envs.smac import processes
from kpg_fast.envs.smac.client import Happening, Launch, What
from kpg_fast.envs.smac.installation import Installation
from kpg_fast.envs.smac.layout import DIFFICULTIES, GAME_IDS, V2_COPIES, Layout, decode_height, decode_pathing
from kpg_fast.envs.smac.teams import Teams
from kpg_fast.envs.vec_env import Array, StepArrays

_RACES = {"T": common_pb2.Terran, "P": common_pb2.Protoss, "Z": common_pb2.Zerg}
_RETRY_S = 0.02


class _LaunchError(Exception):
    """The game did not get as far as a battle."""


@dataclass
class _Joined:
    """A game in which the battle can begin."""

    socket: websocket.WebSocket
    version: str
    info: Any
    first_ally_type: int


@dataclass
class _Slot:
    """A row's game, from its start on."""

    launch: Launch
    process: "subprocess.Popen[bytes]"
    joined: _Joined | None = None
    teams: Teams | None = None


class NativeClient:
    """See `kpg_fast.envs.smac.client.Client`.

    Args:
        layout: the scenario with its options.
        installation: the game.
        arrays: where the results go.
        timeout: seconds a game may take to answer while it is being set up.
        pipeline: send the requests of a step at once; otherwise one after the other, as the libraries do.
    """

    def __init__(
        self, layout: Layout, installation: Installation, arrays: StepArrays, timeout: float, pipeline: bool
    ) -> None:
        from kpg_fast._C import SmacGames

        self.arrays = arrays
        self.facts: dict[str, str] = {"client": "native"}
        self._layout, self._installation = layout, installation
        self._timeout, self._pipeline = timeout, pipeline
        self._map = installation.map_path(layout.scenario).read_bytes()
        self._games = SmacGames(
            len(arrays.obs),
            layout.compiled(),
            layout.ally_types(),
            layout.enemy_types(),
            layout.directions(),
            arrays,
        )
        self._slots: dict[int, _Slot] = {}
        self._awaited: set[int] = set()
        self._happened: deque[Happening] = deque()
        self._arrived: deque[tuple[_Slot, _Joined | Exception]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        self._open, self._gate = True, threading.Lock()

    def start(self, launch: Launch) -> None:
        """Begin to start a game in the background."""
        port = launch.ports[0]
        command = self._installation.command(port, launch.folder)
        environment = self._installation.environment()
        slot = _Slot(launch, processes.start(command, environment, launch.log, launch.folder))
        self._slots[launch.row] = slot
        threading.Thread(target=self._join, args=(slot, port), daemon=True).start()

    def reset(self, row: int) -> None:
        """Begin a new episode in a running game."""
        self._note(self._games.reset(row))
        self._awaited.add(row)

    def step(self, rows: list[int], action: Array, hold: Array) -> None:
        """Begin a step in ``rows``."""
        for failure in self._games.step(rows, action, hold):
            self._note(failure)
        self._awaited.update(rows)

    def wait(self, minimum: int, timeout: float) -> list[Happening]:
        """Wait for ``minimum`` steps to be done, for anything else to happen, or ``timeout`` seconds."""
        if not self._happened:
            for occurrence in self._games.wait(list(self._awaited), minimum, timeout, self._wake_read):
                self._note(occurrence)
            self._welcome()
        happened = list(self._happened)
        self._happened.clear()
        return happened

    def stop(self, row: int) -> None:
        """End the row's game at once."""
        self._awaited.discard(row)
        self._games.detach(row)
        slot = self._slots.pop(row, None)
        if slot is not None:
            processes.kill(slot.process)
            if slot.joined is not None:
                slot.joined.socket.shutdown()

    def fought(self, row: int) -> bool:
        """Whether the results of the step under way are in."""
        return bool(self._games.fought(row))

    def max_reward(self, row: int) -> float:
        """What the row's rewards are scaled by."""
        return float(self._games.max_reward(row))

    def close(self) -> None:
        """End all games."""
        for row in list(self._slots):
            self.stop(row)
        with self._gate:
            self._open = False
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _note(self, occurrence: tuple[int, str, str]) -> None:
        row, what, why = occurrence
        if what == "spawn":
            self._note(self._games.spawn(row, *self._spawn(row)))
        elif what:
            self._awaited.discard(row)
            known: What = what  # type: ignore[assignment]
            self._happened.append(Happening(row, known, why))

    def _spawn(self, row: int) -> tuple[list[int], list[float], list[int], list[int]]:
        """Types, positions, owners and hidden enemies of the row's next episode."""
        slot = self._slots[row]
        assert slot.teams is not None
        assert slot.joined is not None
        episode = slot.teams.draw()
        first = slot.joined.first_ally_type
        types = [first + V2_COPIES.index(name) for name in episode.allies]
        types += [GAME_IDS[name] for name in episode.enemies]
        positions = np.concatenate([episode.ally_positions, episode.enemy_positions])
        owners = [1] * len(episode.allies) + [2] * len(episode.enemies)
        hidden = [] if episode.hidden is None else episode.hidden.ravel().tolist()
        return types, positions.ravel().tolist(), owners, hidden

    def _welcome(self) -> None:
        """Take over the games that a background thread has got to the battle."""
        while self._arrived:
            os.read(self._wake_read, 1)
            slot, result = self._arrived.popleft()
            row = slot.launch.row
            if self._slots.get(row) is not slot:
                # stopped meanwhile
                if isinstance(result, _Joined):
                    result.socket.shutdown()
            elif isinstance(result, Exception):
                self._happened.append(Happening(row, "failed", f"{type(result).__name__}: {result}"))
            else:
                self._attach(slot, result)
                self.reset(row)

    def _attach(self, slot: _Slot, joined: _Joined) -> None:
        slot.joined, launch = joined, slot.launch
        self.facts |= {"game_version": joined.version}
        raw = joined.info.start_raw
        width, height = raw.map_size.x, raw.map_size.y
        area = raw.playable_area
        shuffles = random.Random(launch.seed).getstate()[1]
        draws: Any = np.random.RandomState(launch.seed).get_state(legacy=False)
        self._games.attach(
            launch.row,
            joined.socket.fileno(),
            joined.first_ally_type,
            -1.0 if launch.max_reward is None else launch.max_reward,
            self._pipeline,
            decode_pathing(raw.pathing_grid.bits_per_pixel, width, height, raw.pathing_grid.data),
            decode_height(width, height, raw.terrain_height.data),
            float(area.p1.x - area.p0.x),
            float(area.p1.y - area.p0.y),
            np.array(shuffles, np.uint32),
            _words(draws["state"]["key"], draws["state"]["pos"]),
        )
        if self._layout.scenario.v2:
            config = self._layout.options["capability_config"]
            slot.teams = Teams(config, launch.seed, lambda n: self._games.permutation(launch.row, n))

    def _join(self, slot: _Slot, port: int) -> None:
        """In a thread of its own: connect, create the game, join it."""
        result: _Joined | Exception
        try:
            result = self._converse(_connect(slot.process, port, self._timeout), slot.launch)
        except Exception as error:
            result = error
        with self._gate:
            if self._open:
                self._arrived.append((slot, result))
                os.write(self._wake_write, b"!")
            elif isinstance(result, _Joined):
                result.socket.shutdown()

    def _converse(self, channel: websocket.WebSocket, launch: Launch) -> _Joined:
        scenario, options = self._layout.scenario, self._layout.options
        version = _ask(channel, ping=sc2api_pb2.RequestPing()).ping.game_version
        path = f"SMAC_Maps/{scenario.map_file}.SC2Map"
        create = sc2api_pb2.RequestCreateGame(
            local_map=sc2api_pb2.LocalMap(map_path=path, map_data=self._map), realtime=False, random_seed=launch.seed
        )
        create.player_setup.add(type=sc2api_pb2.Participant)
        create.player_setup.add(
            type=sc2api_pb2.Computer,
            race=_RACES[scenario.enemy_race],
            difficulty=DIFFICULTIES[options["difficulty"]],
        )
        created = _ask(channel, create_game=create).create_game
        if created.HasField("error"):
            raise _LaunchError(f"the game cannot be created: {created.error_details or created.error}")
        interface = sc2api_pb2.InterfaceOptions(raw=True, score=False)
        join = sc2api_pb2.RequestJoinGame(race=_RACES[scenario.ally_race], options=interface)
        joined = _ask(channel, join_game=join).join_game
        if joined.HasField("error"):
            raise _LaunchError(f"the game cannot be joined: {joined.error_details or joined.error}")
        info = _ask(channel, game_info=sc2api_pb2.RequestGameInfo()).game_info
        first_ally_type = -1
        if scenario.v2:
            data = _ask(channel, data=sc2api_pb2.RequestData(unit_type_id=True)).data
            first_ally_type = len(data.units) - len(V2_COPIES)
        return _Joined(channel, version, info, first_ally_type)


def _connect(process: "subprocess.Popen[bytes]", port: int, timeout: float) -> websocket.WebSocket:
    """Connect as soon as the game listens."""
    deadline = time.monotonic() + timeout
    while True:
        code = process.poll()
        if code is not None:
            raise _LaunchError(f"the game ended with code {code} before it listened")
        try:
            # the socket is ours, since the library would ask a proxy that the environment names
            plain = socket.create_connection(("127.0.0.1", port), timeout)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return websocket.create_connection(f"ws://127.0.0.1:{port}/sc2api", timeout=timeout, socket=plain)
        except ConnectionRefusedError:
            pass
        except websocket.WebSocketBadStatusException as error:
            # the game answers 404 while it sets the endpoint up
            if error.status_code != 404:
                raise
        if time.monotonic() > deadline:
            raise _LaunchError(f"the game does not listen after {timeout:g} s")
        time.sleep(_RETRY_S)


def _ask(channel: websocket.WebSocket, **request: Any) -> Any:
    """Send one request and return the response."""
    channel.send_binary(sc2api_pb2.Request(**request).SerializeToString())
    response = sc2api_pb2.Response.FromString(channel.recv())
    if response.error:
        raise _LaunchError(f"{next(iter(request))}: {'; '.join(response.error)}")
    return response


def _words(key: NDArray[np.uint32], position: int) -> NDArray[np.uint32]:
    return np.append(key.astype(np.uint32), np.uint32(position))
