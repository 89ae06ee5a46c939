"""What this machine can run: every finding says what was looked at, whether it is well, and if not what to do."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec

import torch

from kpg_fast.envs import families
from kpg_fast.errors import UsageError
from kpg_fast.kernels.gru import gru
from kpg_fast.runs import provenance

_EXTRAS = {
    "plot": "plots and TensorBoard events",
    "video": "GIF and MP4 of an episode",
    "pettingzoo": "SMAX for other codebases",
    "mamujoco": "MAMuJoCo",
    "smac": "StarCraft II",
    "cuda": "SMAX on a GPU",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    ok: bool
    detail: str
    needed: bool = False
    """Whether nothing works without it."""

    def __str__(self) -> str:
        return f"{'ok     ' if self.ok else 'MISSING' if self.needed else 'no     '} {self.what}: {self.detail}"


def examine() -> Iterator[Finding]:
    """Look at everything, cheapest first; the products at the end take a few seconds."""
    yield from _packages()
    yield from _backends()
    yield from _environments()
    yield from _machine()


def compare_smac_clients() -> Iterator[Finding]:
    """Whether ``--client native`` sees what the libraries see on this machine's StarCraft II, scenario by scenario."""
    from kpg_fast.envs.smac import compare_clients

    for name, agree, detail in compare_clients():
        yield Finding(f"smac/{name}", agree, detail)


def environments() -> dict[str, str]:
    """Family -> its scenarios, or why they cannot be had here."""
    found = {}
    for family in families():
        try:
            found[family] = " ".join(import_module(f"kpg_fast.envs.{family}").names())
        except (ImportError, UsageError) as error:
            found[family] = f"not available: {error}"
    return found


def _packages() -> Iterator[Finding]:
    yield Finding("kpg_fast", True, f"{provenance.versions()['kpg_fast']}, commit {provenance.commit()}", needed=True)
    for package in ("torch", "triton", "numba", "numpy", "safetensors", "tyro", "rich"):
        version = provenance.installed_version(package)
        yield Finding(package, version is not None, version or f"pip install {package}", needed=package != "triton")
    for extra, gives in _EXTRAS.items():
        missing = [package for package in _packages_of(extra) if provenance.installed_version(package) is None]
        install = f"; pip install 'kpg_fast[{extra}]' ({', '.join(missing)})" if missing else ""
        yield Finding(f"extra {extra}", not missing, gives + install)


def _packages_of(extra: str) -> list[str]:
    """The distributions an extra asks for, from this package's own metadata."""
    lines = [line for line in metadata.requires("kpg_fast") or [] if f'extra == "{extra}"' in line.replace("'", '"')]
    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines]


def _backends() -> Iterator[Finding]:
    import kpg_fast._C as extension

    yield Finding("backend C++", True, f"{extension.__file__}, built", needed=True)
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} CPUs"
    kernels = f"C++ kernels for {extension.chosen_kernels()}"
    yield Finding("backend CPU", True, f"{kernels}, numba, {threads}", needed=True)
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        name = f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}, CUDA {torch.version.cuda}"
        yield Finding("backend CUDA", True, name)
    elif torch.version.cuda is None:
        yield Finding("backend CUDA", False, "this torch is a CPU build")
    else:
        driver = "the driver is there but sees no device" if shutil.which("nvidia-smi") else "no NVIDIA driver"
        yield Finding("backend CUDA", False, driver)
    yield Finding("Triton kernels", *_triton())


def _triton() -> tuple[bool, str]:
    if not find_spec("triton"):
        return False, "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return True, "interpreted on the CPU (TRITON_INTERPRET=1)"
    if torch.cuda.is_available():
        return True, "compiled for the GPU"
    return False, "no GPU; TRITON_INTERPRET=1 interprets them on the CPU, for tests"


def _environments() -> Iterator[Finding]:
    """Whether each family can be imported, and what a family that needs more says of itself.

    ``kpg_fast.envs.<family>.diagnose()``, where there is one, gives (what was looked at, whether it is well, what was
    found or what to do) for everything the family needs.
    """
    for family, scenarios in environments().items():
        available = not scenarios.startswith("not available")
        yield Finding(f"environments {family}", available, scenarios)
        diagnose = getattr(import_module(f"kpg_fast.envs.{family}"), "diagnose", list) if available else list
        for what, ok, detail in diagnose():
            yield Finding(f"{family}: {what}", ok, detail)


def _machine() -> Iterator[Finding]:
    hardware = provenance.hardware()
    yield Finding("CPU", True, f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB")
    present = provenance.cpu_features()
    for feature in provenance.CPU_FEATURES:
        yield Finding(f"CPU feature {feature}", feature in present, "present" if feature in present else "absent")
    single, half = gru_gflops("fp32"), gru_gflops("bf16")
    yield Finding("GRU fp32", True, f"{single:.0f} GFLOP/s, forward and backward, as the networks run it")
    gain = half / single
    advice = "--precision mixed-lookahead makes levels cheaper, bf16 everything"
    advice = advice if gain > 1.2 else "bf16 does not pay here; stay with fp32"
    yield Finding("GRU bf16", gain > 1.2, f"{half:.0f} GFLOP/s, {gain:.1f} times fp32: {advice}")


def gru_gflops(precision: str, seconds: float = 0.5) -> float:
    """Speed of a GRU of 128 over 32 steps of 160 rows, the size of the ``jaxmarl`` preset on 2s3z, in GFLOP/s."""
    steps, rows, hidden = 32, 160, 128
    w_x, w_h = (torch.randn(1, hidden, 3 * hidden).mul_(0.05).requires_grad_() for _ in range(2))
    b_x, b_n = (torch.zeros(1, size, requires_grad=True) for size in (3 * hidden, hidden))
    x, reset = torch.randn(1, steps, rows, hidden, requires_grad=True), torch.zeros(steps, rows, dtype=torch.bool)
    h0, dh = torch.zeros(1, rows, hidden), torch.randn(1, steps, rows, hidden)

    def work() -> None:
        h = gru(x, h0, reset, w_x, b_x, w_h, b_n, precision)
        torch.autograd.grad(h, [x, w_x, b_x, w_h, b_n], dh)

    work()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        work()
        calls += 1
    # a product forward and two backward for each of the two weight matrices
    return 3 * 2 * 2e-9 * steps * rows * hidden * 3 * hidden * calls / (time.perf_counter() - start)
