"""Processes, ports and folders of the games: nothing of them outlives the run."""

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from kpg_fast.envs.smac import launcher
from kpg_fast.errors import UsageError

_PREFIX = "kpg-fast-smac-"
_LOCK = "lock"
_SETTLED_S = 60.0
# Ports below the kernel's ephemeral range, cut into slices; an environment owns one and uses its ports in turn, so
# neither a neighbour nor a socket in TIME_WAIT is in the way of a new game.
_FIRST_PORT, _SLICES, _SLICE = 17000, 900, 16

# The kernel ties a child to the thread that started it, so one thread that lives as long as the process starts all. A
# fork has no such thread of its own yet.
_starters: dict[int, ThreadPoolExecutor] = {}


def start(
    command: list[str], environment: dict[str, str], log: Path, folder: Path, keep: tuple[int, ...] = ()
) -> "subprocess.Popen[bytes]":
    """Start ``command`` so that it dies with this process, its output appended to ``log``.

    It has a session of its own: Ctrl-C on a terminal, which asks a run to stop, does not reach the game.

    Args:
        folder: its working directory.
        keep: file descriptors it inherits.
    """
    full = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), *command]

    def popen() -> "subprocess.Popen[bytes]":
        with open(log, "ab") as output:
            return subprocess.Popen(
                full,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=keep,
                start_new_session=True,
            )

    starter = _starters.setdefault(os.getpid(), ThreadPoolExecutor(1, thread_name_prefix="smac-starter"))
    return starter.submit(popen).result()


def kill(process: "subprocess.Popen[bytes] | None") -> None:
    """End a process at once and wait until it is gone."""
    if process is not None:
        process.kill()
        process.wait()


class Workplace:
    """A temporary folder for one batch of games, and the ports they may use.

    Folders of runs that were killed are swept when the next one begins: whoever lives holds a lock in his.
    """

    def __init__(self, num_envs: int) -> None:
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = _hold(self.folder / _LOCK)
        self._slices = _take_slices(num_envs)
        self._used = [0] * num_envs

    def fresh_folder(self, row: int) -> Path:
        """An empty folder for environment ``row``; what its last game left there is gone, but for the log."""
        folder = self.folder / str(row)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def log(self, row: int) -> Path:
        """Where the games of environment ``row`` write."""
        return self.folder / f"{row}.log"

    def ports(self, row: int) -> list[int]:
        """Free ports of the environment's slice, the ones used last at the end."""
        first = _FIRST_PORT + _SLICE * self._slices[row][0]
        self._used[row] += 1
        order = [first + (self._used[row] + k) % _SLICE for k in range(_SLICE)]
        free = [port for port in order if _is_free(port)]
        if not free:
            raise UsageError(f"no free port among {first}..{first + _SLICE - 1}, which are this environment's")
        return free

    def close(self) -> None:
        """Remove the folder and give the ports back."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()
        for _, file in self._slices:
            file.close()


def tail(log: Path, lines: int = 30) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def _hold(path: Path) -> IO[str]:
    """Open and lock a file; the lock ends with the process, however it ends. Raises OSError if another holds it."""
    file = open(path, "a")  # noqa: SIM115  (kept open: closing it gives the lock back)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # somebody else's, or in use: not ours to remove; one just made may not be locked yet
        with contextlib.suppress(OSError):
            if time.time() - (folder / _LOCK).stat().st_mtime > _SETTLED_S:
                with _hold(folder / _LOCK):
                    shutil.rmtree(folder, ignore_errors=True)


def _take_slices(count: int) -> list[tuple[int, IO[str]]]:
    """Lock ``count`` slices that no other run on this machine has."""
    folder = Path(tempfile.gettempdir()) / f"kpg-fast-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    taken: list[tuple[int, IO[str]]] = []
    # runs of other users cannot be seen; beginning at different places keeps them mostly apart, and a port in use is
    # passed over
    begin = os.getuid() * 97 % _SLICES
    for k in range(_SLICES):
        if len(taken) == count:
            return taken
        number = (begin + k) % _SLICES
        with contextlib.suppress(OSError):
            taken.append((number, _hold(folder / str(number))))
    for _, file in taken:
        file.close()
    raise UsageError(f"{count} environments need more ports than are left ({_SLICES} slices of {_SLICE})")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_listening(port: int) -> bool:
    """Whether something listens on this port of this machine; looks without connecting, which a game might mind."""
    wanted = f"0100007F:{port:04X}", f"00000000:{port:04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:
        return any(fields[1] in wanted and fields[3] == "0A" for fields in map(str.split, table))
