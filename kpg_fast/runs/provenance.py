"""What a result came from: versions, commit and hardware."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

import kpg_fast

# What can change a number of a run; the rest of the environment cannot.
_PACKAGES = ("torch", "triton", "numba", "numpy", "safetensors", "mujoco", "mujoco-core", "numba-cuda")
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")


def versions() -> dict[str, str]:
    """Versions of Python, kpg_fast and every installed package that can change a number."""
    found = {"python": platform.python_version(), "kpg_fast": kpg_fast.__version__}
    for package in _PACKAGES:
        version = installed_version(package)
        if version:
            found[package] = version
    return found


def installed_version(package: str) -> str | None:
    """The version of an installed distribution, or ``None``; of torch with its build, which its metadata may lack."""
    if package == "torch":
        return str(torch.__version__)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def checkout() -> Path | None:
    """The root of the source checkout that this package runs from, or ``None`` for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / ".git").exists() else None


def commit() -> str:
    """The commit of the source checkout, with ``+changes`` if tracked files differ from it.

    Where there is none to ask, a copy of the tree without its history: what ``KPG_COMMIT`` says, else ``unknown``.
    """
    root = checkout()
    head = _git(root, "rev-parse", "HEAD") if root else ""
    if root is None or not head:
        return os.environ.get("KPG_COMMIT") or "unknown"
    return head + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")


def hardware() -> dict[str, str | int | list[str]]:
    """CPU, memory, threads and GPU of this machine."""
    found: dict[str, str | int | list[str]] = {
        "cpu": _cpu_field("model name") or platform.processor() or platform.machine(),
        "cpu_features": cpu_features(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.platform(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def cpu_features() -> list[str]:
    """Those instruction sets of the CPU that matter to this package's speed."""
    flags = _cpu_field("flags").split()
    return [feature for feature in CPU_FEATURES if feature in flags]


def _cpu_field(name: str) -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return ""
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _git(root: Path, *arguments: str) -> str:
    try:
        result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
