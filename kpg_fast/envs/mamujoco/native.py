"""The batched stepper through MuJoCo's C functions (``mujoco/mjbatch.h``), with contact forces on its threads.

The Python class of the batch has no call that runs a function on every simulation; C has ``mjb_apply``. The function
must have four arguments and ``mj_rnePostConstraint`` has two, hence the small compiled callback between them.
"""

import ctypes
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import cfunc, types

from kpg_fast.envs.mamujoco import requirements
from kpg_fast.envs.mamujoco.physics import NO_IDS
from kpg_fast.envs.vec_env import Array

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int


class _Config(ctypes.Structure):
    """``mjBatchConfig``."""

    _fields_ = (("nthread", ctypes.c_int), ("persistent", ctypes.c_bool))


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "mj_rnePostConstraint": (None, [_POINTER, _POINTER]),
    "mj_versionString": (ctypes.c_char_p, []),
    "mjb_defaultConfig": (None, [_POINTER]),
    "mjb_makeBatch": (_POINTER, [_POINTER, _INT, _POINTER, ctypes.c_char_p, _INT]),
    "mjb_deleteBatch": (None, [_POINTER]),
    "mjb_nsim": (_INT, [_POINTER]),
    "mjb_nthread": (_INT, [_POINTER]),
    "mjb_persistent": (_INT, [_POINTER]),
    "mjb_nstate": (_INT, [_POINTER]),
    "mjb_state": (_POINTER, [_POINTER]),
    "mjb_stateComponent": (_POINTER, [_POINTER, _INT, _POINTER]),
    "mjb_warning": (_POINTER, [_POINTER]),
    "mjb_status": (_POINTER, [_POINTER]),
    "mjb_error": (ctypes.c_char_p, [_POINTER, _INT]),
    "mjb_output": (_POINTER, [_POINTER, ctypes.c_char_p, _POINTER, _POINTER]),
    "mjb_reset": (_INT, [_POINTER, _POINTER, _INT, _POINTER, _INT]),
    "mjb_step": (_INT, [_POINTER, _POINTER, _INT, _INT, _INT]),
    "mjb_forward": (_INT, [_POINTER, _POINTER, _INT, _INT]),
    "mjb_apply": (_INT, [_POINTER, _POINTER, _INT, _POINTER, _POINTER, _INT]),
}


@cache
def library() -> ctypes.CDLL:
    """The MuJoCo library that the Python package has loaded, with the functions used here declared.

    Raises:
        OSError: it cannot be found, or is another than the package's.
        AttributeError: a function is missing.
    """
    mujoco = requirements.mujoco()
    folder = Path(str(mujoco.__file__)).parent
    found = [path for pattern in ("libmujoco*.so*", "libmujoco*.dylib", "mujoco.dll") for path in folder.glob(pattern)]
    if not found:
        raise OSError(f"no MuJoCo library in {folder}")
    loaded = ctypes.CDLL(str(found[0]))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    if loaded.mj_versionString().decode() != mujoco.mj_versionString():
        raise OSError(f"{found[0]} is not the library of the Python package")
    return loaded


@cache
def _contact_force_callback() -> Any:
    """``void (const mjModel*, mjData*, int, void*)`` that computes the contact forces of one simulation."""
    post_constraint = library().mj_rnePostConstraint

    @cfunc(types.void(types.voidptr, types.voidptr, types.intc, types.voidptr))
    def callback(model, data, simulation, argument):  # type: ignore[no-untyped-def]
        post_constraint(model, data)

    return callback


class NativePhysics:
    """Physics with contact forces on a persistent ``mjBatch``; see :class:`physics.Physics`."""

    def __init__(self, model: Any, num_envs: int, num_threads: int, fields: Sequence[str]) -> None:
        mujoco, self._library = requirements.mujoco(), library()
        self._batch = self._make(model, num_envs, num_threads)
        self._free = weakref.finalize(self, self._library.mjb_deleteBatch, self._batch)
        self._callback = _contact_force_callback()  # kept alive
        self._none, self._all = (int(getattr(mujoco.mjtStage, f"mjSTAGE_{stage}")) for stage in ("NONE", "ACC"))
        width = self._library.mjb_nstate(self._batch)
        state = self._library.mjb_state(self._batch)
        self.rows = _view(state, ctypes.c_double, (num_envs, width))
        parts = ((name, int(getattr(mujoco.mjtState, f"mjSTATE_{name}"))) for name in ("QPOS", "QVEL", "CTRL"))
        self.qpos, self.qvel, self.ctrl = (self._component(state, component) for _, component in parts)
        self.outputs = {name: self._output(name, num_envs) for name in fields}
        self.warnings = _view(
            self._library.mjb_warning(self._batch), _INT, (num_envs, int(mujoco.mjtWarning.mjNWARNING), 2)
        )
        self._status = _view(self._library.mjb_status(self._batch), _INT, (num_envs,))
        self._errors: dict[int, str] = {}

    def _make(self, model: Any, num_envs: int, num_threads: int) -> int:
        config = _Config()
        self._library.mjb_defaultConfig(ctypes.byref(config))
        config.nthread, config.persistent = num_threads, True
        message = ctypes.create_string_buffer(1000)
        batch = self._library.mjb_makeBatch(model._address, num_envs, ctypes.byref(config), message, len(message))
        if not batch:
            raise RuntimeError(f"MuJoCo could not make {num_envs} simulations: {message.value.decode()}")
        made = [getattr(self._library, f"mjb_{what}")(batch) for what in ("nsim", "nthread", "persistent")]
        if made != [num_envs, num_threads, 1]:
            raise RuntimeError(f"asked MuJoCo for {[num_envs, num_threads, 1]} and got {made}")
        return int(batch)

    def _component(self, state: int, component: int) -> Array:
        size = ctypes.c_int()
        address = self._library.mjb_stateComponent(self._batch, component, ctypes.byref(size))
        start = (address - state) // ctypes.sizeof(ctypes.c_double)
        return self.rows[:, start : start + size.value]

    def _output(self, name: str, num_envs: int) -> Array:
        size, width = ctypes.c_int(), ctypes.c_int()
        address = self._library.mjb_output(self._batch, name.encode(), ctypes.byref(size), ctypes.byref(width))
        if not address or width.value != ctypes.sizeof(ctypes.c_double):
            raise RuntimeError(f"MuJoCo gives no {name} in float64")
        return _view(address, ctypes.c_double, (num_envs, size.value))

    def step(self, num_substeps: int) -> Array:
        """See :class:`physics.Physics`."""
        run = self._library
        self._errors.clear()
        failures = self._failed(run.mjb_step(self._batch, None, 0, num_substeps, self._none))
        callback = ctypes.c_void_p(self._callback.address)
        failures |= self._failed(run.mjb_apply(self._batch, None, 0, callback, None, 0))
        # outputs are copied by this call alone, and it computes nothing else
        failures |= self._failed(run.mjb_forward(self._batch, None, 0, self._none))
        return np.array(sorted(failures), np.int32) if failures else NO_IDS

    def _failed(self, count: int) -> set[int]:
        if not count:
            return set()
        failed = {int(simulation) for simulation in np.flatnonzero(self._status)}
        for simulation in failed:
            self._errors.setdefault(simulation, self._library.mjb_error(self._batch, simulation).decode())
        return failed

    def reset(self, ids: Array) -> None:
        """See :class:`physics.Physics`."""
        self._on(ids, lambda pointer, count: self._library.mjb_reset(self._batch, pointer, count, None, self._none))

    def forward(self, ids: Array) -> None:
        """See :class:`physics.Physics`."""
        self._on(ids, lambda pointer, count: self._library.mjb_forward(self._batch, pointer, count, self._all))

    def _on(self, ids: Array, call: Callable[[int, int], int]) -> None:
        if call(ids.ctypes.data, len(ids)):
            failed = self._failed(1)
            raise RuntimeError(f"MuJoCo raised in simulations {sorted(failed)}: {next(iter(self._errors.values()))}")

    def error(self, simulation: int) -> str:
        """See :class:`physics.Physics`."""
        return self._errors.get(simulation, "")

    def close(self) -> None:
        """See :class:`physics.Physics`. Views of its memory must not be used any more."""
        self._free()


def _view(address: int, kind: Any, shape: tuple[int, ...]) -> Array:
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(kind)), shape)
