"""Compile what a host function would launch, for cards that are not there, and reads off what it takes.

``recording`` stands in for the launch: host functions run on meta tensors of any size and the kernels they would have
started are collected with their arguments, from which Triton compiles as it would have at the first launch.

``python -m bench.gpu_ahead`` compiles every kernel and writes the table docs/gpu_kernels.md.
"""

import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from bench.gpu_cases import CASES

POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.bool: "*i1",
}


TABLE = Path(__file__).parents[1] / "docs" / "gpu_kernels.md"
TARGETS = (80, 90)
HEADER = """# What the Triton kernels take

Compiled ahead of time by Triton {triton}, read from ptxas. Registers and spilled bytes (stores and loads) are a
thread's, shared memory is a block's. `python -m bench.gpu_ahead` writes this file anew; the key tells whether a row
still belongs to the code.

| kernel | case | target | warps | registers | shared bytes | spilled bytes | key |
|---|---|---|---|---|---|---|---|
"""


class Resources(NamedTuple):
    """Of a compiled kernel."""

    warps: int
    registers: int
    shared_bytes: int
    spill_bytes: int


@dataclass(frozen=True)
class Launch:
    """A kernel with the arguments of one launch."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """The module below kpg_fast.kernels and the function."""
        return f"{self.kernel.__module__.removeprefix('kpg_fast.kernels.')}.{self.kernel.__name__}"

    def source(self) -> ASTSource:
        """What is compiled, specialised as a launch on a card specialises."""
        signature, constants, attributes = {}, {}, {}
        for i, parameter in enumerate(self.kernel.params):
            value = self.arguments[parameter.name]
            if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
                signature[parameter.name], constants[(i,)] = "constexpr", value
                continue
            signature[parameter.name] = kind(value)
            if isinstance(value, torch.Tensor) or (type(value) is int and value % 16 == 0):
                attributes[(i,)] = [["tt.divisibility", 16]]
        return ASTSource(self.kernel, signature, constants, attributes)

    def key(self) -> str:
        """Eight digits that change with the kernel's code, its arguments and its options."""
        return hashlib.sha256(f"{self.source().hash()} {sorted(self.options.items())}".encode()).hexdigest()[:8]

    def compile(self, target: int) -> Any:
        """For 80 (Ampere), 90 (Hopper), ..."""
        return triton.compile(self.source(), target=GPUTarget("cuda", target, 32), options=self.options)


def kind(value: Any) -> str:
    """What Triton calls the type of an argument."""
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


@contextmanager
def recording(target: int) -> Iterator[list[Launch]]:
    """Launches inside are collected, as for a card of this target, instead of started."""
    launches: list[Launch] = []

    def launch(kernel: Any, grid: tuple[int, ...]) -> Callable[..., None]:
        def record(*args: Any, **options: Any) -> None:
            names = [parameter.name for parameter in kernel.params]
            arguments = dict(zip(names, args, strict=False))
            arguments |= {name: options.pop(name) for name in names if name in options}
            launches.append(Launch(kernel, grid, arguments, options))

        return record

    with ExitStack() as stack:
        for module in ("gru", "lookahead"):
            stack.enter_context(mock.patch(f"kpg_fast.kernels.{module}.gpu.capability", return_value=target // 10))
        stack.enter_context(mock.patch.object(JITFunction, "__getitem__", launch))
        yield launches


def resources(compiled: Any, target: int) -> Resources:
    """Registers a thread, shared memory a block, and spills a thread, as ptxas reports them for the kernel."""
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder) / "kernel.ptx"
        ptx.write_text(compiled.asm["ptx"])
        name = re.findall(r"\.target (\w+)", compiled.asm["ptx"])[0]
        command = [get_ptxas(target).path, "-v", f"--gpu-name={name}", str(ptx), "-o", "/dev/null"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", report))
    registers = int(re.findall(r"Used (\d+) registers", report)[0])
    return Resources(compiled.metadata.num_warps, registers, compiled.metadata.shared, spilled)


def launches(target: int) -> list[tuple[str, Launch]]:
    """Every kernel's launches at the sizes of 2s3z (128 steps, 4096 environments), by case; a repeated one once."""
    found: dict[tuple[str, str], tuple[str, Launch]] = {}
    for case, start in CASES.items():
        with recording(target) as recorded:
            start()
        for launch in recorded:
            found.setdefault((launch.name, launch.key()), (case, launch))
    return list(found.values())


def write_table() -> None:
    """Write what all take to docs/gpu_kernels.md; compiled is what has changed since the table there."""
    version, rows = read_table()
    known = rows if version == triton.__version__ else {}
    lines = [HEADER.format(triton=triton.__version__)]
    for target in TARGETS:
        for case, launch in launches(target):
            name = (launch.name, launch.key(), target)
            taken = known[name][1] if name in known else resources(launch.compile(target), target)
            cells = (launch.name, case, f"sm_{target}", *taken, launch.key())
            lines.append("| " + " | ".join(map(str, cells)) + " |\n")
            print(lines[-1], end="", flush=True)
    TABLE.write_text("".join(lines))


def read_table() -> tuple[str, dict[tuple[str, str, int], tuple[str, Resources]]]:
    """The version of Triton that made docs/gpu_kernels.md, and its rows: (kernel, key, target) -> (case, resources)."""
    text = TABLE.read_text()
    rows: dict[tuple[str, str, int], tuple[str, Resources]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if len(cells) == 8 and cells[2].startswith("sm_"):
            kernel, case, target, *numbers, key = cells
            rows[kernel, key, int(target[3:])] = (case, Resources(*map(int, numbers)))
    return re.findall(r"by Triton (\d+\.\d+\.\d+)", text)[0], rows


if __name__ == "__main__":
    write_table()
