"""What runs when a launcher starts ``SC2_x64``: ``main.py INSTALLATION VERSION -listen HOST -port PORT ...``."""

import ctypes
import os
import signal
import socket
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from starcraft.faults import Faults, take_launch_number  # noqa: E402
from starcraft.game import Crash, Game, Hang  # noqa: E402
from starcraft.websocket_server import Channel, Closed, handshake  # noqa: E402


def _listen(arguments: list[str]) -> socket.socket:
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((options["-listen"], int(options["-port"])))
    server.listen(1)
    return server


def _serve(channel: Channel, game: Game, faults: Faults) -> None:
    while True:
        try:
            answer = game.answer(channel.receive())
        except Crash:
            print("Stand-in: fatal error: access violation in Combat::Update", file=sys.stderr, flush=True)
            print("Stand-in: 0x00007f3a  SC2_x64 + 0x1b2c3d", file=sys.stderr, flush=True)
            # die like the game does, without a core file
            ctypes.CDLL(None).prctl(4, 0)
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        except Hang:
            time.sleep(3600)
        if answer is None:
            if faults.find("orphan"):
                continue
            return
        if answer == b"close":
            channel.connection.sendall(b"\x82\x7e\x10\x00half a frame")
            return
        channel.send(answer)


def main() -> None:
    """Listen, take one client, serve it until it quits or goes."""
    folder, version = Path(sys.argv[1]), sys.argv[2]
    faults = Faults(folder, take_launch_number(folder))
    if faults.find("orphan"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if fault := faults.find("slow_start"):
        time.sleep(fault["seconds"])
    print(f"Stand-in {version} starts as process {os.getpid()}", file=sys.stderr, flush=True)
    server = _listen(sys.argv[3:])
    game = Game(version, faults)
    while True:
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            handshake(connection, "403 Forbidden" if faults.find("refuse") else None)
            _serve(Channel(connection), game, faults)
            return
        except (Closed, ConnectionError):
            # a probe that sends nothing or a refused client: wait for the next; a played game ends with its client
            if game.played and not faults.find("orphan"):
                return
        finally:
            connection.close()


if __name__ == "__main__":
    main()
