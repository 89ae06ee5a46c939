"""Nothing outlives a run: processes, folders, ports."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from kpg_fast.envs.smac import processes

_SCRIPT = """
import sys, time
from kpg_fast.envs import StepArrays
from kpg_fast.envs.smac import make_env
env = make_env("3m", 2, client=sys.argv[1], stagger=0.0)
env.reset(StepArrays.empty(env.spec))
print(*(slot.process.pid for slot in env._client._slots.values()), flush=True)
time.sleep(60)
"""


def _descendants(pid):
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return children + [one for child in children for one in _descendants(child)]


def _is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("client", ["native", "smac"])
def test_a_killed_run_takes_its_games_with_it_and_the_next_sweeps_up(game, tmp_path, monkeypatch, client):
    pytest.importorskip("s2clientprotocol.sc2api_pb2", reason="pip install 'kpg_fast[smac]'")
    if client == "smac" and (find_spec("smac") is None or find_spec("smac.env") is None):
        pytest.skip("github.com/oxwhirl/smac is not installed")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(processes.tempfile, "tempdir", str(tmp_path))
    run = subprocess.Popen([sys.executable, "-c", _SCRIPT, client], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in run.stdout.readline().split()]
    everybody = pids + [child for pid in pids for child in _descendants(pid)]
    assert len(everybody) == (2 if client == "native" else 4)
    assert not any(map(_is_gone, everybody))
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.stdout.close()
    deadline = time.monotonic() + 5
    while not all(map(_is_gone, everybody)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert all(map(_is_gone, everybody))
    left = list(tmp_path.glob("kpg-fast-smac-*"))
    assert len(left) == 1
    alive = processes.Workplace(1)
    monkeypatch.setattr(processes, "_SETTLED_S", -1.0)
    processes.Workplace(1).close()
    assert not left[0].exists(), "what a dead run left is swept"
    assert alive.folder.exists(), "what a living run has is not"
    alive.close()
    assert list(tmp_path.glob("kpg-fast-smac-*")) == []


def test_runs_side_by_side_have_ports_of_their_own():
    one, two = processes.Workplace(3), processes.Workplace(2)
    try:
        ports = [set(one.ports(row)) for row in range(3)] + [set(two.ports(row)) for row in range(2)]
        assert all(len(some) >= 8 for some in ports)
        for k, some in enumerate(ports):
            assert not some & set().union(*ports[:k])
        assert one.ports(0)[0] != one.ports(0)[0], "a port just used is tried last"
    finally:
        one.close()
        two.close()


def test_a_process_dies_with_the_thread_that_lives_as_long_as_ours(tmp_path):
    """Started from a thread that ends at once, the process goes on: the kernel ties it to the starter thread."""
    import threading

    started = []
    thread = threading.Thread(
        target=lambda: started.append(
            processes.start(["/bin/sleep", "30"], dict(os.environ), tmp_path / "log", tmp_path)
        )
    )
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert started[0].poll() is None
    processes.kill(started[0])
    assert started[0].returncode == -signal.SIGKILL
