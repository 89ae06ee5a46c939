"""Many simulations of one model stepped together: MuJoCo's own batched, threaded stepper, in two forms.

`BatchPhysics` speaks the documented Python API. It is also the fallback for contact forces, which Gymnasium
computes after a step (``mj_rnePostConstraint``) and the Python API can only do one simulation at a time: exact, but
some 20 % slower. `native.NativePhysics` runs them on the batch's threads.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from kpg_fast.envs.mamujoco import requirements
from kpg_fast.envs.vec_env import Array


class Physics(Protocol):
    """E simulations. ``qpos``, ``qvel``, ``ctrl`` and ``rows`` are live: what is written is the next call's state."""

    rows: Array  # [E, nstate] float64: mjSTATE_INTEGRATION, everything the simulation's future depends on
    qpos: Array  # [E, nq] float64, a view of rows
    qvel: Array  # [E, nv] float64, a view of rows
    ctrl: Array  # [E, nu] float64, a view of rows
    outputs: dict[str, Array]  # field of MjData -> [E, size] float64, as of the last call
    warnings: Array  # [E, W, 2] int32: of each warning the last info and how often it came since the reset

    def step(self, num_substeps: int) -> Array:
        """Advance every simulation; returns the ids [F] int32 of those that raised (they keep their state)."""

    def reset(self, ids: Array) -> None:
        """Put simulations (sorted int32) back to the model's defaults, contact forces and warm start included."""

    def forward(self, ids: Array) -> None:
        """Compute everything that follows from the state of simulations (``mj_forward``)."""

    def error(self, simulation: int) -> str:
        """What a simulation raised in the last call, or ``""``."""

    def close(self) -> None:
        """Free the simulations."""


NO_IDS = np.zeros(0, np.int32)
_FAULTS = ("mjWARN_BADQPOS", "mjWARN_BADQVEL", "mjWARN_BADQACC", "mjWARN_BADCTRL")


def fault_warnings() -> Array:
    """Which of MuJoCo's warnings mean that a simulation became NaN or too large and was set back."""
    warning = requirements.mujoco().mjtWarning
    return np.array([int(getattr(warning, name)) for name in _FAULTS], np.int32)


class BatchPhysics:
    """Physics on ``mujoco.batch.Batch``, documented API alone."""

    def __init__(
        self, model: Any, num_envs: int, num_threads: int, fields: Sequence[str], contact_forces: bool = False
    ) -> None:
        self._mujoco = requirements.mujoco()
        self._simulation_error = requirements.batch().SimulationError
        self._batch = requirements.batch().Batch(model, num_envs, num_threads, persistent=contact_forces)
        self.rows = self._batch.state
        self.qpos, self.qvel, self.ctrl = (self._batch.bind(name) for name in ("qpos", "qvel", "ctrl"))
        self.outputs = {
            name: self._batch.bind(name).reshape(num_envs, -1)
            for name in fields
            if not (contact_forces and name == "cfrc_ext")
        }
        self._scratch = None
        if contact_forces:
            self._model, self._scratch = model, self._mujoco.MjData(model)
            self.outputs["cfrc_ext"] = np.zeros((num_envs, model.nbody * 6))
        self.warnings = self._batch.warning

    def step(self, num_substeps: int) -> Array:
        """See :class:`Physics`."""
        failed = NO_IDS
        try:
            self._batch.step(nstep=num_substeps)
        except self._simulation_error as error:
            failed = np.asarray(error.ids, np.int32)
        if self._scratch is not None:
            forces = self.outputs["cfrc_ext"]
            for simulation in range(len(forces)):
                self._batch.get_data(simulation, self._scratch)
                self._mujoco.mj_rnePostConstraint(self._model, self._scratch)
                forces[simulation] = self._scratch.cfrc_ext.ravel()
        return failed

    def reset(self, ids: Array) -> None:
        """See :class:`Physics`."""
        self._batch.reset(ids, stage=int(self._mujoco.mjtStage.mjSTAGE_NONE))
        if self._scratch is not None:
            self.outputs["cfrc_ext"][ids] = 0.0

    def forward(self, ids: Array) -> None:
        """See :class:`Physics`."""
        self._batch.forward(ids)

    def error(self, simulation: int) -> str:
        """See :class:`Physics`."""
        return str(self._batch.error(simulation))

    def close(self) -> None:
        """See :class:`Physics`; the memory goes with the last view of it."""
        del self._batch
