"""The stand-in on its own, spoken to with s2clientprotocol and a websocket client."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

sc = pytest.importorskip("s2clientprotocol.sc2api_pb2", reason="s2clientprotocol is not installed")
websocket = pytest.importorskip("websocket", reason="websocket-client is not installed")

from starcraft import VERSIONS, install, launches, set_faults  # noqa: E402


class Player:
    """A started stand-in and a connection to it."""

    def __init__(self, folder, version="4.10.0"):
        program = folder / "Versions" / f"Base{VERSIONS[version]}" / "SC2_x64"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [program, "-listen", "127.0.0.1", "-port", str(self.port)], stderr=subprocess.PIPE
        )

    def connect(self):
        deadline = time.monotonic() + 10
        while True:
            try:
                self.socket = websocket.create_connection(f"ws://127.0.0.1:{self.port}/sc2api", timeout=5)
                return self
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def ask(self, **request):
        self.socket.send_binary(sc.Request(id=7, **request).SerializeToString())
        response = sc.Response.FromString(self.socket.recv())
        assert response.id == 7
        return response

    def play(self, map_name="3m", seed=1):
        create = sc.RequestCreateGame(
            local_map=sc.LocalMap(map_path=f"SMAC_Maps/{map_name}.SC2Map", map_data=b"x"), random_seed=seed
        )
        assert not self.ask(create_game=create).create_game.HasField("error")
        join = sc.RequestJoinGame(race=1, options=sc.InterfaceOptions(raw=True))
        assert self.ask(join_game=join).status == sc.Status.Value("in_game")
        return self

    def units(self):
        answer = self.ask(observation=sc.RequestObservation())
        return list(answer.observation.observation.raw_data.units)

    def step(self, count=8):
        return self.ask(step=sc.RequestStep(count=count))


@pytest.fixture
def folder(tmp_path):
    return install(tmp_path / "SC2", tuple(VERSIONS))


@pytest.fixture
def start(folder):
    players = []

    def begin(*faults, version="4.10.0"):
        set_faults(folder, *faults)
        players.append(Player(folder, version))
        return players[-1]

    yield begin
    for player in players:
        player.process.kill()
        player.process.wait()
        player.process.stderr.close()


def test_an_episode_is_fought_and_both_sides_are_back_after_the_kill(start):
    game = start().connect()
    assert game.ask(ping=sc.RequestPing()).ping.game_version == "stand-in 4.10.0"
    game.play()
    first = game.units()
    assert sorted(unit.owner for unit in first) == [1, 1, 1, 2, 2, 2]
    for _ in range(40):
        game.step()
    hurt = game.units()
    assert sum(unit.health for unit in hurt if unit.owner == 1) < 3 * 45
    kill = [{"kill_unit": {"tag": [unit.tag for unit in hurt]}}]
    game.ask(debug=sc.RequestDebug(debug=kill))
    game.step(2)
    back = game.units()
    assert len(back) == 6
    assert all(unit.health == unit.health_max for unit in back)
    assert not {unit.tag for unit in back} & {unit.tag for unit in first}


def test_the_same_seed_plays_the_same_game(start):
    def trace(seed):
        game = start().connect().play("MMM", seed)
        for _ in range(20):
            game.step()
        return [(unit.tag, unit.pos.x, unit.pos.y, unit.health) for unit in game.units()]

    assert trace(3) == trace(3) != trace(4)


def test_units_are_made_on_the_empty_map(start):
    game = start().connect().play("32x32_flat")
    assert game.units() == []
    marine = len(game.ask(data=sc.RequestData(unit_type_id=True)).data.units) - 9 + 4
    create = [{"create_unit": {"unit_type": marine, "owner": 1, "pos": {"x": 9, "y": 9}, "quantity": 1}}]
    game.ask(debug=sc.RequestDebug(debug=create))
    assert [(unit.unit_type, unit.health_max) for unit in game.units()] == [(marine, 45)]


def test_pipelined_requests_are_answered_in_order(start):
    game = start().connect().play()
    for i in range(20):
        game.socket.send_binary(sc.Request(id=i, step=sc.RequestStep(count=1)).SerializeToString())
    answers = [sc.Response.FromString(game.socket.recv()) for _ in range(20)]
    assert [answer.id for answer in answers] == list(range(20))
    assert [answer.step.simulation_loop for answer in answers] == list(range(1, 21))


def test_requests_out_of_order_are_errors(start):
    game = start().connect()
    assert game.step().error
    assert game.ask(observation=sc.RequestObservation()).error


def test_the_game_ends_at_its_last_loop(start):
    game = start({"kind": "loop_limit", "loops": 20}).connect().play()
    assert game.step().status == game.step().status == sc.Status.Value("in_game")
    assert game.step().status == sc.Status.Value("ended")
    assert "already ended" in game.step().error[0]


def test_quit_is_not_answered(start):
    game = start().connect().play()
    game.socket.send_binary(sc.Request(quit=sc.RequestQuit(), id=999999999).SerializeToString())
    game.process.wait(3)
    with pytest.raises(websocket.WebSocketConnectionClosedException):
        game.socket.recv()


def test_it_crashes_with_its_last_words(start):
    game = start({"kind": "crash", "at": 3}).connect().play()
    game.step(), game.step()
    with pytest.raises((websocket.WebSocketException, ConnectionError)):
        game.step()
    assert game.process.wait(3) == -signal.SIGSEGV
    assert b"access violation" in game.process.stderr.read()


def test_it_hangs_errs_and_talks_nonsense(start):
    hung = start({"kind": "hang", "at": 1}).connect().play()
    hung.socket.settimeout(0.3)
    with pytest.raises(websocket.WebSocketTimeoutException):
        hung.step()
    assert hung.process.poll() is None
    assert start({"kind": "error", "at": 1}).connect().play().step().error
    with pytest.raises(Exception, match=r"[Pp]arsing"):
        start({"kind": "garbage", "at": 1}).connect().play().step()


def test_it_starts_slowly_and_refuses(start):
    begun = time.monotonic()
    start({"kind": "slow_start", "seconds": 0.5}).connect()
    assert time.monotonic() - begun > 0.5
    with pytest.raises(websocket.WebSocketBadStatusException):
        start({"kind": "refuse"}).connect()


def test_units_come_one_by_one(start):
    game = start({"kind": "partial", "loops": 3}).connect().play()
    counts = [len(game.units())]
    for _ in range(4):
        game.step(3)
        counts.append(len(game.units()))
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[-1] == 6


def test_an_orphan_outlives_its_client(start):
    game = start({"kind": "orphan"}).connect().play()
    game.socket.send_binary(sc.Request(quit=sc.RequestQuit()).SerializeToString())
    game.socket.close()
    os.kill(game.process.pid, signal.SIGTERM)
    time.sleep(0.3)
    assert game.process.poll() is None


def test_faults_are_narrowed_to_a_launch_and_counted(start, folder):
    set_faults(folder, {"kind": "error", "at": 1, "launch": 1}, {"kind": "error", "at": 2, "times": 1})
    seen = []
    for _ in range(3):
        game = Player(folder).connect().play()
        seen.append([bool(game.step().error), bool(game.step().error)])
        game.process.kill()
        game.process.wait()
        game.process.stderr.close()
    assert seen == [[False, True], [True, False], [False, False]]
    assert launches(folder) == 3


def test_a_real_game_is_not_replaced_by_mistake(tmp_path):
    program = Path(__file__).with_name("install.py")
    (tmp_path / "Versions").mkdir()
    done = subprocess.run([sys.executable, program, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "something else" in done.stderr
    assert (tmp_path / "Versions").is_dir()
