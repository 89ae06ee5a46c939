"""What of MAMuJoCo works on this machine, found out by trying."""

from functools import cache
from typing import Any

import numpy as np

from kpg_fast.envs.mamujoco import requirements
from kpg_fast.envs.mamujoco.native import NativePhysics
from kpg_fast.errors import UsageError

_PROBE = """
<mujoco><option integrator="RK4"/><worldbody><geom type="plane" size="1 1 1"/>
<body pos="0 0 .1"><freejoint/><geom size=".1" mass="1"/></body></worldbody></mujoco>
"""


def capabilities() -> dict[str, str]:
    """What is there: versions, the stepper and how contact forces are computed. Never raises."""
    report = {
        package: requirements.installed_version(package) or f"missing; run: {requirements.INSTALL}"
        for package in ("mujoco-core", "gymnasium")
    }
    try:
        report["mujoco"] = requirements.mujoco().__version__
    except UsageError as error:
        return {**report, "stepper": f"none: {error}"}
    if report["mujoco-core"].startswith("missing"):
        del report["mujoco-core"]  # an older MuJoCo, in one wheel
    way, reason = contact_force_backend()
    report["stepper"] = "mujoco.batch"
    report["contact forces"] = {"c": "C functions", "python": f"documented Python API, slower ({reason})"}[way]
    return report


def diagnose() -> list[tuple[str, bool, str]]:
    """The same as (what was looked at, whether it is well, what was found or what to do)."""
    return [(what, not state.startswith(("missing", "none")), state) for what, state in capabilities().items()]


@cache
def contact_force_backend() -> tuple[str, str]:
    """``("c", "")``, or ``("python", why not c)`` if the C functions are missing or give other contact forces.

    Raises:
        UsageError: MuJoCo is missing or too old.
    """
    mujoco = requirements.mujoco()
    try:
        model = mujoco.MjModel.from_xml_string(_PROBE)
        expected, got = _reference_forces(mujoco, model), _native_forces(model)
    except (OSError, AttributeError, RuntimeError) as error:
        return "python", str(error)
    if not np.array_equal(expected, got) or not expected.any():
        return "python", "the C functions give other contact forces than mj_rnePostConstraint"
    return "c", ""


def _reference_forces(mujoco: Any, model: Any) -> Any:
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data, nstep=10)
    mujoco.mj_rnePostConstraint(model, data)
    return data.cfrc_ext.ravel()


def _native_forces(model: Any) -> Any:
    physics = NativePhysics(model, 2, 1, ("cfrc_ext",))
    try:
        physics.step(10)
        return physics.outputs["cfrc_ext"][1].copy()
    finally:
        physics.close()
