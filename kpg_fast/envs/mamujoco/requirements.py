"""The optional packages, imported late, with the line that installs them."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from kpg_fast.errors import UsageError

INSTALL = 'pip install "kpg_fast[mamujoco]"'


def mujoco() -> ModuleType:
    """The ``mujoco`` package with its batched stepper.

    Raises:
        UsageError: not installed, or older than the batched stepper.
    """
    return _with_batch("mujoco")


def batch() -> ModuleType:
    """The module ``mujoco.batch``; see :func:`mujoco` for errors."""
    return _with_batch("mujoco.batch")


def gymnasium_assets() -> Path:
    """The folder of Gymnasium's MuJoCo models; Gymnasium itself is not imported.

    Raises:
        UsageError: Gymnasium is not installed.
    """
    spec = find_spec("gymnasium")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"MAMuJoCo takes its models from gymnasium, which is not installed; run: {INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "envs" / "mujoco" / "assets"


def installed_version(package: str) -> str | None:
    """The installed version, or ``None``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _with_batch(name: str) -> ModuleType:
    try:
        module = import_module("mujoco")
    except ImportError as error:
        raise UsageError(f"MAMuJoCo needs MuJoCo, which cannot be imported ({error}); run: {INSTALL}") from error
    try:
        import_module("mujoco.batch")
    except ImportError as error:
        raise UsageError(
            f"MuJoCo {module.__version__} has no batched stepper (mujoco.batch, new in 3.17); run: {INSTALL}"
        ) from error
    return import_module(name)
