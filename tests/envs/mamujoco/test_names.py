"""Names, options and what an error tells its reader."""

import sys

import mujoco
import pytest

from kpg_fast.envs import make
from kpg_fast.envs.mamujoco import capabilities, make_env, names
from kpg_fast.envs.mamujoco.catalog import parse, partition
from kpg_fast.errors import UsageError


def test_names_parse_and_share_out_every_joint_once():
    for name in names():
        joints = [joint for agent in partition(*parse(name)) for joint in agent]
        assert len(joints) == len(set(joints))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("HalfCheeta-2x3", "HalfCheetah"),
        ("HalfCheetah-2x2", "2x3"),
        ("Humanoid-9l8", "9|8"),
        ("HalfCheetah", "scenario, hyphen, agent_conf"),
        ("HalfCheetah_2x3", "did you mean HalfCheetah-2x3"),
        ("ManySegmentSwimmer-10", "AGENTSxSEGMENTS_PER_AGENT"),
        ("ManySegmentSwimmer-1x1", "2 to 100"),
        ("ManySegmentAnt-0x3", "AGENTSxSEGMENTS_PER_AGENT"),
        ("ManySegmentAnt-101x1", "1 to 100 segments in all"),
        ("ManySegmentSwimmer-100000x100000", "2 to 100 segments in all"),
        (f"ManySegmentSwimmer-{'9' * 5000}x1", "2 to 100 segments in all"),
    ],
)
def test_unknown_names_name_the_nearest(name, told):
    with pytest.raises(UsageError, match="unknown") as caught:
        make(f"mamujoco/{name}", num_envs=1)
    assert told in str(caught.value)


def test_an_animal_may_have_a_hundred_segments():
    assert len(partition(*parse("ManySegmentSwimmer-10x10"))) == 10


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"obsevation": "harl"}, "did you mean observation"),
        ({"observation": "hral"}, "did you mean harl"),
        ({"agent_obsk": -1}, "agent_obsk must not be negative"),
        ({"agent_obsk": "1"}, "agent_obsk is of type int"),
        ({"contact_forces": "cpp"}, "contact_forces"),
        ({"device": "tpu"}, "unknown device"),
        ({"num_envs": 0}, "num_envs must be at least 1"),
    ],
)
def test_bad_options(options, told):
    with pytest.raises(UsageError) as caught:
        make_env("HalfCheetah-2x3", **{"num_envs": 1, **options})
    assert told in str(caught.value)


@pytest.mark.parametrize("absent", ["mujoco", "mujoco.batch", "gymnasium"])
def test_a_missing_package_is_told_with_the_line_that_installs_it(monkeypatch, absent):
    monkeypatch.setitem(sys.modules, absent, None)
    if absent == "gymnasium":
        monkeypatch.setattr("kpg_fast.envs.mamujoco.requirements.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install "kpg_fast\[mamujoco\]"'):
        make_env("Ant-4x2", 1)
    if absent != "gymnasium":
        assert "pip install" in capabilities()["stepper"]


def test_capabilities_say_how_contact_forces_are_computed():
    assert capabilities()["contact forces"] == "C functions"
    assert capabilities()["mujoco"] == mujoco.__version__
