"""The compiled client against bytes no game would send: it reports a lost game and nothing worse."""

import random
import socket
import struct

import numpy as np
import pytest

import kpg_fast  # noqa: F401
from kpg_fast._C import SmacGames
from kpg_fast.envs import StepArrays
from kpg_fast.envs.smac import _spec
from kpg_fast.envs.smac.layout import Layout
from kpg_fast.envs.smac.scenarios import find

sc = pytest.importorskip("s2clientprotocol.sc2api_pb2", reason="pip install 'kpg_fast[smac]'")


@pytest.fixture
def connected():
    """A client of 3m and the socket of its game."""
    layout = Layout.build(find("3m"), {}, False, True, native=True)
    arrays = StepArrays.empty(_spec(layout, 1))
    games = SmacGames(1, layout.compiled(), layout.ally_types(), layout.enemy_types(), [], arrays)
    ours, theirs = socket.socketpair()
    words = np.append(np.arange(624), 624).astype(np.uint32)
    open_, height = np.ones((32, 32), np.uint8), np.zeros((32, 32))
    games.attach(0, ours.fileno(), -1, -1.0, True, open_, height, 28.0, 24.0, words, words)
    theirs.settimeout(1)
    yield games, theirs, arrays
    games.detach(0)
    ours.close()
    theirs.close()


def frame(payload, first=0x82):
    size = len(payload)
    head = struct.pack(">BB", first, size) if size < 126 else struct.pack(">BBH", first, 126, size)
    return head + payload


def observation(request_id=1, units=6):
    response = sc.Response(id=request_id, status=3)
    raw = response.observation.observation.raw_data
    for k in range(units):
        owner = 1 + k % 2
        kind = 1970 if owner == 1 else 48
        raw.units.add(tag=k + 1, unit_type=kind, owner=owner, health=45 - k, health_max=45)
        raw.units[-1].pos.x, raw.units[-1].pos.y = 5.0 + k, 9.0
    return response.SerializeToString()


def wait(games):
    return games.wait([0], 1, 0.2, -1)


def test_an_episode_begins(connected):
    games, server, arrays = connected
    assert games.reset(0) == (0, "", "")
    server.sendall(frame(observation()))
    assert wait(games) == [(0, "ready", "")]
    assert arrays.alive.all()
    assert games.max_reward(0) == 200 + 3 * 10 + 3 * 45


def test_messages_in_pieces_and_fragments_and_pings(connected):
    games, server, _ = connected
    games.reset(0)
    server.recv(4096)
    data = observation()
    whole = frame(b"ping!", 0x89) + frame(data[:50], 0x02) + frame(b"", 0x8A) + frame(data[50:], 0x80)
    for at in range(0, len(whole), 7):
        assert wait(games) == [] if at < 21 else True
        server.sendall(whole[at : at + 7])
    assert wait(games) == [(0, "ready", "")]
    assert server.recv(4096) == b"\x8a\x85\0\0\0\0ping!"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (frame(b"", 0x88), "closed"),
        (frame(observation(request_id=9)), "another request"),
        (frame(sc.Response(id=1, status=3).SerializeToString()), "no observation"),
        (frame(sc.Response(id=1).SerializeToString()), "no status"),
        (frame(sc.Response(id=1, status=5).SerializeToString()), "over"),
        (frame(sc.Response(id=1, status=3, error=["bad", "worse"]).SerializeToString()), "bad; worse"),
        (frame(observation()[:-8]), "cut off|no status"),
        (b"\x82\xff" + b"\0" * 8, "masked"),
        (b"\x82\x7f" + b"\x7f" * 8, "impossibly long"),
        (b"\x83\x00", "unknown frame"),
        (frame(b"\x0f"), "unknown kind|cut off"),
        (frame(b"\xff" * 11), "too long"),
    ],
)
def test_nonsense_is_a_lost_game(connected, sent, why):
    games, server, _ = connected
    games.reset(0)
    server.sendall(sent)
    ((row, what, reason),) = wait(games)
    assert (row, what) == (0, "failed")
    assert any(part in reason for part in why.split("|")), reason


def test_a_unit_nobody_knows_is_a_lost_game(connected):
    games, server, _ = connected
    games.reset(0)
    response = sc.Response.FromString(observation())
    response.observation.observation.raw_data.units[1].unit_type = 7
    server.sendall(frame(response.SerializeToString()))
    assert "unknown unit type 7" in wait(games)[0][2]


def test_a_game_that_is_gone_is_noticed(connected):
    games, server, _ = connected
    server.close()
    assert games.reset(0)[1] == "failed" or wait(games)[0][1] == "failed"


def test_damaged_observations_never_do_harm():
    """Every truncation and many flipped bits: an answer is taken or the game is lost."""
    rng, good = random.Random(0), observation()
    outcomes = set()
    layout = Layout.build(find("3m"), {}, False, True, native=True)
    arrays = StepArrays.empty(_spec(layout, 1))
    games = SmacGames(1, layout.compiled(), layout.ally_types(), layout.enemy_types(), [], arrays)
    words = np.append(np.arange(624), 624).astype(np.uint32)
    open_, height = np.ones((32, 32), np.uint8), np.zeros((32, 32))
    damaged = [good[:k] for k in range(len(good))]
    for _ in range(1000):
        bad = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(bad))
    for data in damaged:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            games.attach(0, ours.fileno(), -1, -1.0, True, open_, height, 28.0, 24.0, words, words)
            games.reset(0)
            theirs.sendall(frame(data))
            outcomes |= {what for _, what, _ in games.wait([0], 1, 0.0, -1)}
            games.detach(0)
    assert outcomes == {"ready", "failed"}


def test_arrays_and_actions_are_checked(connected):
    games, server, arrays = connected
    games.reset(0)
    server.sendall(frame(observation()))
    wait(games)
    hold = np.zeros(1, np.bool_)
    with pytest.raises(ValueError, match="agent 1 cannot take action 0"):
        games.step([0], np.array([[1, 0, 1]], np.int32), hold)
    with pytest.raises(ValueError, match="cannot take action -1"):
        games.step([0], np.array([[-1, 1, 1]], np.int32), hold)
    with pytest.raises(ValueError, match="shape"):
        games.step([0], np.ones((1, 2), np.int32), hold)
    with pytest.raises(TypeError):
        games.step([0], np.ones((1, 3), np.int64), hold)
    with pytest.raises(IndexError):
        games.step([1], np.ones((1, 3), np.int32), hold)
    layout = Layout.build(find("3m"), {}, False, True, native=True)
    arrays.obs = arrays.obs.astype(np.float64)
    with pytest.raises(ValueError, match="obs has another dtype"):
        SmacGames(1, layout.compiled(), layout.ally_types(), layout.enemy_types(), [], arrays)
