"""What of a session on a card can be held without one: bench/gpu_session.sh and the modules that it starts."""

import gc
import json
import re
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.autograd import DeviceType

from bench import gpu_ahead, gpu_cases, gpu_profile, gpu_training
from bench.measure import Case

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "bench" / "gpu_session.sh"

# what a machine that has torch, triton, numba and pybind11 need not have
MISSING = ("safetensors", "tyro", "rich", "pytest", "hypothesis", "matplotlib", "jax", "gymnasium", "mujoco")
BLOCKED = f"import sys; sys.modules |= dict.fromkeys({MISSING})\n"  # None: as if not installed


def test_measuring_needs_nothing_but_what_the_machine_brings():
    code = f"{BLOCKED}from bench import gpu, gpu_profile, gpu_training\nfrom kpg_fast.envs.smax import device\n"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_case_that_fails_costs_no_other(tmp_path, monkeypatch, capsys):
    def fail():
        raise RuntimeError("out of memory")

    runs = {"a": lambda: {"ours": [1.0]}, "broken": fail, "b": lambda: {"ours": [2.0]}}
    made = [Case(name, "time", "ms", run=run) for name, run in runs.items()]
    monkeypatch.setattr(gpu_training, "cases", lambda: made)
    out = tmp_path / "rows.jsonl"
    assert gpu_training.main(["--out", str(out)]) == 1
    assert [json.loads(line)["case"] for line in out.read_text().splitlines()] == ["a", "b"]
    assert "RuntimeError: out of memory" in capsys.readouterr().err
    assert gpu_training.main(["-f", "^.$"]) == 0


def test_what_a_failed_measurement_held_is_free_for_the_next():
    held = []

    def fail():
        def in_a_cycle():  # as trainers are: its own cell holds it
            return in_a_cycle

        held.append(weakref.ref(in_a_cycle))
        raise RuntimeError

    gc.disable()
    try:
        with pytest.raises(RuntimeError):
            gpu_training.alone(fail)()
        assert held[0]() is not None
        assert gpu_training.alone(held[0])() is None
    finally:
        gc.enable()


def event(name, begin, end, device=DeviceType.CUDA):
    return SimpleNamespace(name=name, device_type=device, time_range=SimpleNamespace(start=begin, end=end))


def test_profile_by_kernel_and_by_phase():
    phases = [event("phase: b", 5000, 9000, DeviceType.CPU), event("phase: a", 0, 4000, DeviceType.CPU)]
    on_card = [event("x", 1000, 2000), event("y", 6000, 9000), event("x", 2000, 4000), event("y", 4500, 5500)]
    others = [event("phase: a", 1000, 4000), event("aten::add", 0, 10, DeviceType.CPU)]
    spans, found = gpu_profile.spans([*phases, *on_card, *others])
    kernels = [line.split() for line in gpu_profile.by_kernel(spans)]
    assert " ".join(kernels[0]) == "an iteration of 8.00 ms: 7.00 ms of kernels, 2 kinds"
    assert kernels[2:] == [["4.000", "57.1%", "2", "2000.00", "y"], ["3.000", "42.9%", "2", "1500.00", "x"]]
    assert [line.split()[:4] for line in gpu_profile.by_phase(spans, found)][2:] == [
        ["3.000", "42.9%", "4.000", "a"],
        ["3.000", "42.9%", "4.000", "b"],
        ["1.000", "14.3%", "0.000", "the"],
    ]


def test_launches_are_measured_by_place():
    """Recorded arguments are in the kernel's order: by name Triton would take `stream` for something else."""
    for case, start in gpu_cases.CASES.items():
        with gpu_ahead.recording(90) as launches:
            start()
        for launch in launches:
            assert list(launch.arguments) == [parameter.name for parameter in launch.kernel.params], (case, launch.name)


def test_session_is_a_script_of_less_than_eight_minutes():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    phases: dict[str, int] = {}
    for name, limit in re.findall(r"(?:run|tests) [\"$]*(\w+)\"? (\d+) ", SCRIPT.read_text()):
        together = {"test_large": "last", "sanitizer": "last", "sanitizer_smax": "last", "file": "tests"}
        phase = together.get(name, "tests" if name.startswith(("compile_", "test_")) else name)
        phases[phase] = max(phases.get(phase, 0), int(limit))
    assert phases.keys() == {"build", "tests", "training", "profile", "kernels", "last"}
    assert sum(phases.values()) + 5 * len(phases) < 480  # five seconds to end what does not stop by itself


def test_sanitizer_looks_at_every_kernel():
    """What its expression names are tests that there are, some in every file but those of whole updates and games."""
    text = re.sub(r"\\\n", "", SCRIPT.read_text())
    expression = re.findall(r'SMALL="(.*)"', text)[0]
    words = set(re.findall(r"\w+", expression)) - {"or", "and", "shape1"}
    unnamed = set(words)
    for path in (ROOT / "tests" / "gpu").glob("test_*.py"):
        names = [f"{path.stem} {name}" for name in re.findall(r"def (test_\w+)", path.read_text())]
        found = {word for word in words if any(word in name for name in names)}
        whole = ("test_large", "test_training", "test_off_policy", "test_update", "test_smax_traces")
        assert found or path.stem in whole, path
        unnamed -= found
    assert not unnamed
