"""The client that plays through smac and smacv2, unmodified: one process an environment (`worker`)."""

import json
import os
import select
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import kpg_fast.envs
from kpg_fast.envs.smac import processes, shared, worker
from kpg_fast.envs.smac.client import Happening, Launch, What
from kpg_fast.envs.smac.installation import library_version
from kpg_fast.envs.smac.layout import Layout
from kpg_fast.envs.vec_env import Array, EnvSpec

# A worker imports kpg_fast.envs without kpg_fast itself, whose import is that of torch: seconds and 200 MB a process.
_BOOT = """
import sys, types
package = types.ModuleType("kpg_fast")
package.__path__ = [sys.argv.pop(1)]
sys.modules["kpg_fast"] = package
from kpg_fast.envs.smac.worker import main
main()
"""


@dataclass
class _Slot:
    """A row's worker."""

    process: "subprocess.Popen[bytes]"
    commands: int
    events: int
    heard: bytes = b""


class LibraryClient:
    """See `kpg_fast.envs.smac.client.Client`; ``launch_timeout`` as in `Supervision`."""

    def __init__(self, layout: Layout, spec: EnvSpec, launch_timeout: float) -> None:
        self._layout, self._spec, self._launch_timeout = layout, spec, launch_timeout
        self._memory = shared.create()
        self._board = shared.attach(self._memory, spec)
        self.arrays = self._board.arrays
        library = layout.scenario.library
        self.facts: dict[str, str] = {"client": "smac", "library": f"{library} {library_version(layout.scenario)}"}
        self._slots: dict[int, _Slot] = {}

    def start(self, launch: Launch) -> None:
        """Begin to start a worker and its game."""
        task = launch.folder / "task.json"
        task.write_text(json.dumps(self._task(launch)))
        commands, tell = os.pipe()
        hear, events = os.pipe()
        package = str(Path(kpg_fast.envs.__file__).parents[1])
        pipes = (commands, events, self._memory)
        command = [sys.executable, "-W", "ignore", "-c", _BOOT, package, str(task), *map(str, pipes)]
        environment = dict(os.environ) | {"TMPDIR": str(launch.folder), "OMP_NUM_THREADS": "1"}
        environment["no_proxy"] = "127.0.0.1"  # where the game is, which PySC2 would look for behind a proxy
        process = processes.start(command, environment, launch.log, launch.folder, keep=pipes)
        os.close(commands)
        os.close(events)
        self._slots[launch.row] = _Slot(process, tell, hear)

    def reset(self, row: int) -> None:
        """Begin a new episode in a running game."""
        self._send(row, worker.RESET)

    def step(self, rows: list[int], action: Array, hold: Array) -> None:
        """Begin a step in ``rows``."""
        for row in rows:
            self._board.action[row] = action[row]
            self._board.fought[row] = False
            self._send(row, worker.STEP_AND_HOLD if hold[row] else worker.STEP)

    def wait(self, minimum: int, timeout: float) -> list[Happening]:
        """Wait for ``minimum`` steps to be done, for anything else to happen, or ``timeout`` seconds."""
        happened: list[Happening] = []
        poll = select.poll()
        rows = {slot.events: row for row, slot in self._slots.items()}
        for events in rows:
            poll.register(events, select.POLLIN)
        while len(happened) < minimum:
            ready = poll.poll(timeout * 1000)
            if not ready:
                break
            for events, _ in ready:
                happened += self._hear(rows[events])
                if happened and happened[-1].what == "failed":
                    poll.unregister(events)
            if any(one.what != "stepped" for one in happened):
                break
        return happened

    def stop(self, row: int) -> None:
        """End the row's worker, and with it its game."""
        slot = self._slots.pop(row, None)
        if slot is not None:
            processes.kill(slot.process)
            os.close(slot.commands)
            os.close(slot.events)

    def fought(self, row: int) -> bool:
        """Whether the results of the step under way are in."""
        return bool(self._board.fought[row])

    def max_reward(self, row: int) -> float:
        """What the row's rewards are scaled by."""
        return float(self._board.max_reward[row])

    def close(self) -> None:
        """End all workers."""
        for row in list(self._slots):
            self.stop(row)
        os.close(self._memory)

    def _task(self, launch: Launch) -> dict[str, Any]:
        layout, options = self._layout, dict(self._layout.options)
        # only then do the libraries say that the time limit ended an episode
        options["continuing_episode"] = True
        return {
            "row": launch.row,
            "library": layout.scenario.library,
            "map_name": layout.scenario.map_name,
            "options": options,
            "spec": asdict(self._spec),
            "seed": launch.seed,
            "ports": launch.ports,
            "max_reward": launch.max_reward,
            "launch_timeout": self._launch_timeout,
            "bootstrap_time_limit": layout.bootstrap_time_limit,
        }

    def _send(self, row: int, command: bytes) -> None:
        # a worker that is gone is heard of by the end of its events
        try:
            os.write(self._slots[row].commands, command)
        except BrokenPipeError:
            return

    def _hear(self, row: int) -> list[Happening]:
        """What the row's worker says; one that has ended without a word has failed."""
        slot = self._slots[row]
        said = os.read(slot.events, 4096)
        if not said:
            code = slot.process.wait()
            return [Happening(row, "failed", f"the client's process ended with code {code}")]
        *lines, slot.heard = (slot.heard + said).split(b"\n")
        happened = []
        for line in lines:
            what, _, why = line.decode(errors="replace").partition(" ")
            known: What = what  # type: ignore[assignment]
            if known == "ready":
                self.facts |= json.loads(why)
                why = ""
            happened.append(Happening(row, known, why))
        return happened
