"""What can go wrong on demand. Faults are dictionaries in ``faults.json`` of the installation.

``kind`` is one of
    crash        die of SIGSEGV, after a few lines on stderr, at the ``at``-th step request
    hang         stop answering there
    error        answer that request with an error
    garbage      answer it with bytes that are no message
    close        close the connection there, in the middle of a frame
    slow_start   wait ``seconds`` before listening
    refuse       refuse the websocket handshake with status 403
    no_game      refuse to create the game
    partial      units of a new episode appear one by one, ``loops`` apart
    loop_limit   the game ends after ``loops`` loops (without this fault after 2^19)
    orphan       ignore the quit request, the end of the connection and SIGTERM
    slow         sleep a random time between ``seconds[0]`` and ``seconds[1]`` in each step
A fault may be narrowed: ``launch`` (the n-th game this installation starts, from 0), ``map`` (file name without its
ending), ``times`` (so many games at most).
"""

import fcntl
import json
from pathlib import Path
from typing import Any

LOOP_LIMIT = 2**19


def take_launch_number(folder: Path) -> int:
    """Count this launch; safe among games that start together."""
    with open(folder / "launches", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        number = len(file.read().split())
        file.write(f"{number}\n")
    return number


class Faults:
    """The faults that apply to this game."""

    def __init__(self, folder: Path, launch: int) -> None:
        self._folder = folder
        listed = json.loads((folder / "faults.json").read_text())
        self._faults: list[dict[str, Any]] = [f for f in listed if f.get("launch", launch) == launch]

    def enter_map(self, map_name: str) -> None:
        """Forget the faults of other maps."""
        self._faults = [f for f in self._faults if f.get("map", map_name) == map_name]

    def find(self, *kinds: str, at: int | None = None) -> dict[str, Any] | None:
        """The first fault of these kinds (due at the ``at``-th step), if any is left to be had."""
        for fault in self._faults:
            if fault["kind"] in kinds and (at is None or fault["at"] == at) and self._spend(fault):
                return fault
        return None

    def _spend(self, fault: dict[str, Any]) -> bool:
        if "times" not in fault:
            return True
        with open(self._folder / "spent", "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            key = json.dumps(fault, sort_keys=True)
            if file.read().split("\n").count(key) >= fault["times"]:
                return False
            file.write(key + "\n")
        return True
