"""SMAX's CUDA driver without a card: under the simulator against golden traces and the CPU, and compiled to PTX."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from kpg_fast.envs import StepArrays, make
from kpg_fast.envs.smax import env
from tests.envs.smax.replay import TOLERANCE

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed (extra cuda)")
cuda = pytest.importorskip("kpg_fast.envs.smax.cuda")

TRACES = ["2s3z:6:1", "2s3z-random:4:1", "2s3z-self_play:3:1", "3s_vs_5z-conic-continuous:4:1", "smacv2_5_units:3:1"]


def test_simulated_games_are_the_cpus_and_jaxmarls(tmp_path):
    from tests.envs.smax.cuda_simulated import PLAYED, play, play_seeds

    command = [sys.executable, "-m", "tests.envs.smax.cuda_simulated", str(tmp_path / "played.npz"), *TRACES]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]

    played = np.load(tmp_path / "played.npz")
    for case, (name, options) in PLAYED.items():
        for key, expected in play(name, **options).items():
            tolerance = 1e-5 if expected.dtype.kind == "f" else 0
            np.testing.assert_allclose(
                played[f"{case}/{key}"], expected, rtol=0, atol=tolerance, err_msg=f"{case} {key}"
            )

    for key, expected in play_seeds(None).items():
        if key.endswith(("/floats", "/ints")):  # scratch rows among them
            continue
        tolerance = 1e-5 if expected.dtype.kind == "f" else 0
        np.testing.assert_allclose(played[f"seeds/{key}"], expected, rtol=0, atol=tolerance, err_msg=key)
    for key, value in played.items():  # two engines in the same state play the same
        if key.startswith("seeds/") and "/" not in key.removeprefix("seeds/"):
            np.testing.assert_array_equal(value[-2], value[-1], err_msg=key)

    replayed = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(replayed) == len(TRACES)
    for result in replayed:
        assert result["thrown"] == 0
        for part, error in result["worst"].items():
            assert error <= TOLERANCE[part], (result["trace"], part, error)


def launched(monkeypatch, name, **options):
    """The kernels that a reset and a step would launch, with their arguments."""
    calls, build = [], cuda.kernels

    class Recorded:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            return lambda *args: calls.append((self.kernel, grid, args))

    monkeypatch.setattr(env, "cpu", cuda)
    monkeypatch.setattr(cuda, "kernels", lambda columns: tuple(map(Recorded, build(columns))))
    engine = make(name, 3, **options)
    out = StepArrays.empty(engine.spec)
    engine.reset(out)
    shape = (3, engine.spec.num_agents, *((4,) if engine.spec.continuous else ()))
    engine.step(np.zeros(shape, np.float32 if engine.spec.continuous else np.int32), out)
    return calls


def test_kernels_compile_to_ptx_of_hopper_without_a_driver(monkeypatch):
    # numba-cuda compiles device functions for the card at hand
    hopper = SimpleNamespace(compute_capability=(9, 0))
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: hopper)
    for kernel, grid, arguments in launched(monkeypatch, "smax/2s3z"):
        assert grid == (3, 32)
        signature = numba.types.void(*map(numba.typeof, arguments))
        ptx, _ = numba.cuda.compile(
            kernel.py_func, signature, cc=(9, 0), output="ptx", device=False, abi="numba", forceinline=False
        )
        assert ".target sm_90" in ptx
        assert ".visible .entry" in ptx
        assert "bar.sync" in ptx
        assert "fma.rn.f32" in ptx
        assert "sqrt.rn.f32" in ptx
        assert "div.rn.f32" in ptx
        shared = [int(n) for n in re.findall(r"\.shared .*\[(\d+)\];", ptx)]
        assert sum(shared) < 48 * 1024
