"""CoupledHalfCheetah, broken upstream on MuJoCo >= 3.6, against one MjData per environment."""

import mujoco
import numpy as np

from kpg_fast.envs.mamujoco.models import load_model

TORSO = ["rootx", "rootz", "rooty"]
SORTED_LEGS = ["bfoot", "bshin", "bthigh", "ffoot", "fshin", "fthigh"]


def seen_by(model, data, cheetah):
    """Its own joints, the tendon where the back thigh stands, then both torsos: x cannot be seen."""
    dense = np.zeros(model.nv)
    mujoco.mju_sparse2dense(
        dense.reshape(1, -1), data.ten_J, model.ten_J_rownnz, model.ten_J_rowadr, model.ten_J_colind
    )
    numbers = []
    for leg in SORTED_LEGS:
        joint = data.joint(f"{leg}{cheetah}")
        numbers += [joint.qpos[0], joint.qvel[0]]
        if leg == "bthigh":
            numbers += [dense[model.joint(f"root{axis}{side}").dofadr[0]] for side in (0, 1) for axis in "xz"]
            numbers += [data.ten_length[0], data.ten_velocity[0]]
    for side in (0, 1):
        numbers += [data.joint(f"root{axis}{side}").qpos[0] for axis in "yz"]
    for side in (0, 1):
        numbers += [data.joint(f"root{axis}{side}").qvel[0] for axis in "xyz"]
    return numbers


def test_against_single_simulations(start):
    env, out = start("CoupledHalfCheetah-1p1", 2)
    model = load_model("CoupledHalfCheetah", "1p1")
    datas = [mujoco.MjData(model) for _ in range(2)]
    for data, qpos, qvel in zip(datas, *env.get_state(), strict=True):
        data.qpos, data.qvel = qpos, qvel
        mujoco.mj_forward(model, data)
    random = np.random.default_rng(0)
    for _ in range(200):
        action = random.uniform(-1, 1, (2, 2, 6)).astype(np.float32)
        env.step(action, out)
        obs, state = env.exact_observation()
        for index, data in enumerate(datas):
            before = data.qpos[[0, 9]].copy()
            data.ctrl = action[index].ravel()
            mujoco.mj_step(model, data, nstep=5)
            for cheetah in (0, 1):
                np.testing.assert_array_equal(obs[index, cheetah], seen_by(model, data, cheetah))
            speed = (data.qpos[[0, 9]] - before).mean() / 0.05
            cost = 0.1 * np.square(action[index].astype(float)).sum() / 2
            assert abs(env.exact_reward()[index] - (speed - cost)) <= 1e-12
            np.testing.assert_array_equal(state[index, :16], np.delete(data.qpos, [0, 9]))
            np.testing.assert_array_equal(state[index, 16:34], data.qvel)
            np.testing.assert_array_equal(state[index, 34:], obs[index, 0, 6:12])
    assert np.abs(state[:, 34:38]).max() > 0
