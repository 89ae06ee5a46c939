"""Every Triton kernel compiles for Ampere and Hopper without a card, fits, and keeps its numbers in registers."""

import pytest
import triton

from bench import gpu_ahead as ahead
from bench.gpu_cases import OF_ONE

SHARED = {80: 163 * 1024, 90: 227 * 1024}  # what a block may have, CUDA programming guide

# Kernels that may spill: (kernel, case, target) -> (bytes at most, why)
FULL = "all 255 registers hold tiles; half the rows would read the recurrent matrix twice as often"
HEURISTIC = "ptxas stops at 128 registers to fit more blocks on a multiprocessor, which is worth a few words"
SPILLS = {
    ("gru.resident.backward_kernel", "bf16, 128 units, many rows", 80): (12, FULL),
    ("gru.resident.backward_kernel", "bf16, 128 units, many rows", 90): (36, FULL),
    ("gru.streamed.backward_kernel", "tf32, 128 units, many rows", 80): (24, HEURISTIC),
    ("lookahead.recurrent.resident_kernel", "lookahead, bf16, 128 units", 80): (8, FULL),
    ("lookahead.recurrent.resident_kernel", "lookahead, bf16, 128 units", 90): (24, FULL),
    ("lookahead.recurrent.streamed_kernel", "lookahead, bf16, 256 units", 80): (72, FULL),
    ("linear.gpu._weights_kernel", "bf16, 64 units, many rows", 80): (16, HEURISTIC),
}

# Compiled anew by every run of the tests, the rest only where the table is of another version of Triton.
HOT = ("advantages", "surrogate, 10 actions", "bf16, 128 units, many rows")


@pytest.fixture(autouse=True)
def empty_is_nan():
    """Not here: tensors without memory cannot be filled."""


def check(launch, case, target, taken):
    assert taken.shared_bytes <= SHARED[target], (launch.name, case, target, taken)
    if ahead.read_table()[0] != triton.__version__:
        return  # blocks are chosen so that nothing spills with the table's version
    allowed, _ = SPILLS.get((launch.name, case, target), (0, ""))
    assert taken.spill_bytes <= allowed, (launch.name, case, target, taken)


@pytest.mark.parametrize("target", ahead.TARGETS)
def test_the_table_is_of_this_code_and_nothing_spills(target):
    version, rows = ahead.read_table()
    if version != triton.__version__:
        pytest.skip(f"the table was made with Triton {version}, here is {triton.__version__}")
    launches = ahead.launches(target)
    assert len(launches) == sum(row_target == target for _, _, row_target in rows)
    for case, launch in launches:
        row = rows.get((launch.name, launch.key(), target))
        assert row, f"{launch.name} ({case}) has changed: run python -m bench.gpu_ahead"
        check(launch, case, target, row[1])


@pytest.mark.slow
@pytest.mark.parametrize("case", OF_ONE)
def test_sizes_of_one_compile(case, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with ahead.recording(90) as launches:
        OF_ONE[case]()
    assert launches
    assert any(type(value) is int and value == 1 for launch in launches for value in launch.arguments.values())
    for launch in launches:
        launch.compile(90)


@pytest.mark.slow
@pytest.mark.parametrize("target", ahead.TARGETS)
def test_kernels_compile_and_take_what_the_table_says(target, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    version, rows = ahead.read_table()
    for case, launch in ahead.launches(target):
        if version == triton.__version__ and case not in HOT:
            continue
        taken = ahead.resources(launch.compile(target), target)
        check(launch, case, target, taken)
        if version == triton.__version__:
            assert taken == rows[launch.name, launch.key(), target][1], (launch.name, case)
