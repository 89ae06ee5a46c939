"""Compiles what a host function would launch, for cards that are not there, and reads off what it takes.

``recording`` stands in for the launch: host functions run on meta tensors of any size and the kernels they would have
started are collected with their arguments, from which Triton compiles as it would have at the first launch.
"""

import re
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.bool: "*i1",
}


@dataclass(frozen=True)
class Launch:
    """A kernel with the arguments of one launch."""

    kernel: JITFunction
    grid: tuple
    arguments: dict
    options: dict

    def compile(self, capability):
        """For compute capability 80, 90, ..., specialised as a launch on a card specialises."""
        signature, constants, attributes = {}, {}, {}
        for i, parameter in enumerate(self.kernel.params):
            value = self.arguments[parameter.name]
            if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
                signature[parameter.name], constants[(i,)] = "constexpr", value
                continue
            signature[parameter.name] = kind(value)
            if isinstance(value, torch.Tensor) or (type(value) is int and value % 16 == 0):
                attributes[(i,)] = [["tt.divisibility", 16]]
        source = ASTSource(self.kernel, signature, constants, attributes)
        return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=self.options)


def kind(value):
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


@contextmanager
def recording():
    """Launches inside are collected instead of started."""
    launches = []

    def launch(kernel, grid):
        def record(*args, **options):
            names = [parameter.name for parameter in kernel.params]
            arguments = dict(zip(names, args, strict=False))
            arguments |= {name: options.pop(name) for name in names if name in options}
            launches.append(Launch(kernel, grid, arguments, options))

        return record

    with mock.patch.object(JITFunction, "__getitem__", launch):
        yield launches


def resources(compiled, capability):
    """Registers a thread, shared memory a block, and spills a thread, as ptxas reports them for the kernel."""
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder) / "kernel.ptx"
        ptx.write_text(compiled.asm["ptx"])
        target = re.search(r"\.target (\w+)", compiled.asm["ptx"])[1]
        command = [get_ptxas(capability).path, "-v", f"--gpu-name={target}", str(ptx), "-o", "/dev/null"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    stores, loads = (int(n) for n in re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report).groups())
    registers = int(re.search(r"Used (\d+) registers", report)[1])
    shared = max(compiled.metadata.shared, *(int(n) for n in re.findall(r"(\d+) bytes smem", report)), 0)
    return {"registers": registers, "shared_bytes": shared, "spill_bytes": stores + loads}
