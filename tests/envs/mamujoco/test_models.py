"""The models that are built here are Gymnasium-Robotics' in every number that physics reads."""

from pathlib import Path

import mujoco
import numpy as np
import pytest

from kpg_fast.envs.mamujoco.models import load_model

upstream = pytest.importorskip("gymnasium_robotics.envs.multiagent_mujoco", reason="needs gymnasium-robotics")
ASSETS = Path(upstream.__file__).parent / "assets"
# of drawing, and of names and the memory they take
DRAWN = ("cam_", "light_", "mat_", "tex_", "name", "ncam", "nlight", "nmat", "ntex", "nnames", "nbuffer", "signature")
DRAWN += ("geom_matid", "geom_rgba", "tendon_rgba", "tendon_width", "numeric_", "nnumeric")


def many_segment(scenario, segments, folder):
    from gymnasium_robotics.envs.multiagent_mujoco import many_segment_ant, many_segment_swimmer

    module = many_segment_ant if scenario == "ManySegmentAnt" else many_segment_swimmer
    module.gen_asset(segments, str(folder / "model.xml"))
    return mujoco.MjModel.from_xml_path(str(folder / "model.xml"))


def assert_same_physics(ours, theirs):
    compared = 0
    for holder in (lambda model: model, lambda model: model.opt):
        for name in dir(holder(ours)):
            value = getattr(holder(ours), name)
            if name.startswith(("_", *DRAWN)) or not isinstance(value, int | float | np.ndarray):
                continue
            np.testing.assert_array_equal(value, getattr(holder(theirs), name), err_msg=name)
            compared += 1
    assert compared > 300


@pytest.mark.parametrize("conf", ["1x1", "2x3"])
def test_many_segment_ant(conf, tmp_path):
    segments = int(conf[0]) * int(conf[2])
    assert_same_physics(load_model("ManySegmentAnt", conf), many_segment("ManySegmentAnt", segments, tmp_path))


@pytest.mark.parametrize("conf", ["2x1", "1x3", "4x2"])
def test_many_segment_swimmer(conf, tmp_path):
    segments = int(conf[0]) * int(conf[2])
    assert_same_physics(load_model("ManySegmentSwimmer", conf), many_segment("ManySegmentSwimmer", segments, tmp_path))


def test_coupled_half_cheetah():
    theirs = mujoco.MjModel.from_xml_path(str(ASSETS / "coupled_half_cheetah.xml"))
    assert_same_physics(load_model("CoupledHalfCheetah", "1p1"), theirs)
