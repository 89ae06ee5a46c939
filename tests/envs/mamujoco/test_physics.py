"""Both ways to the batched stepper, where simulations raise."""

import mujoco
import numpy as np
import pytest

from kpg_fast.envs.mamujoco.doctor import contact_force_backend
from kpg_fast.envs.mamujoco.native import NativePhysics
from kpg_fast.envs.mamujoco.physics import BatchPhysics

BOXES = "".join(
    f'<body pos="{0.5 * index} 0 5"><joint name="joint{index}" type="slide" axis="0 0 1"/>'
    '<geom type="box" size=".1 .1 .1" mass="1"/></body>'
    for index in range(10)
)
TOO_LITTLE_MEMORY = f"""
<mujoco><size memory="3K"/><worldbody><geom type="plane" size="5 5 1"/>{BOXES}</worldbody>
<actuator><motor joint="joint0"/></actuator></mujoco>
"""
ONE = np.array([1], np.int32)


@pytest.mark.parametrize("native", [True, False])
def test_a_simulation_that_raises_is_named_and_recovers(native):
    model = mujoco.MjModel.from_xml_string(TOO_LITTLE_MEMORY)
    if native:
        physics = NativePhysics(model, 3, 2, ("cfrc_ext",))
    else:
        physics = BatchPhysics(model, 3, 2, ("cfrc_ext",), contact_forces=True)
    assert physics.step(1).size == 0
    physics.qpos[1] = -4.95  # onto the floor: more contacts than there is memory for
    assert physics.step(1).tolist() == [1]
    assert "memory" in physics.error(1)
    assert physics.error(0) == ""
    physics.reset(ONE)
    physics.forward(ONE)
    assert physics.step(1).size == 0
    physics.close()


def test_other_contact_forces_choose_the_python_way(monkeypatch):
    monkeypatch.setattr("kpg_fast.envs.mamujoco.doctor._native_forces", lambda model: np.zeros(12))
    contact_force_backend.cache_clear()
    try:
        assert contact_force_backend()[0] == "python"
    finally:
        monkeypatch.undo()
        contact_force_backend.cache_clear()
    assert contact_force_backend() == ("c", "")
