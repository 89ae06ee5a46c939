"""The models: Gymnasium's MJCF files, and the three that are built from them or written here.

ManySegmentSwimmer, ManySegmentAnt and CoupledHalfCheetah are the tasks of FACMAC (Peng et al., NeurIPS 2021,
https://arxiv.org/abs/2003.06709) in the form of Gymnasium-Robotics 1.4: compiled, they equal its models in every number
that physics reads. Nothing that is only drawn (textures, lights, cameras) is kept.
"""

import copy
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

from kpg_fast.envs.mamujoco import requirements
from kpg_fast.envs.mamujoco.catalog import num_segments

_FILES = {
    "HalfCheetah": "half_cheetah.xml",
    "Ant": "ant.xml",
    "Hopper": "hopper.xml",
    "Walker2d": "walker2d_v5.xml",
    "Humanoid": "humanoid.xml",
    "HumanoidStandup": "humanoidstandup.xml",
    "Swimmer": "swimmer.xml",
    "Reacher": "reacher.xml",
    "Pusher": "pusher_v5.xml",
}


def load_model(scenario: str, conf: str) -> Any:
    """Compile the ``mujoco.MjModel`` of a scenario that :func:`catalog.parse` has accepted."""
    if scenario in _FILES:
        path = requirements.gymnasium_assets() / _FILES[scenario]
        return _quietly(lambda mujoco: mujoco.MjModel.from_xml_path(str(path)))
    if scenario == "CoupledHalfCheetah":
        xml = _coupled_half_cheetah()
    elif scenario == "ManySegmentSwimmer":
        xml = _many_segment_swimmer(num_segments(scenario, conf))
    else:
        xml = _many_segment_ant(num_segments(scenario, conf))
    return _quietly(lambda mujoco: mujoco.MjModel.from_xml_string(xml))


def _quietly(compile_model: Callable[[Any], Any]) -> Any:
    """Compile without MuJoCo's warning that Gymnasium's files use deprecated attributes (it would also start a log)."""
    mujoco = requirements.mujoco()
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        return compile_model(mujoco)
    finally:
        mujoco.set_mju_user_warning(before)


def _gymnasium_tree(scenario: str) -> ET.Element:
    return ET.parse(requirements.gymnasium_assets() / _FILES[scenario]).getroot()


def _child(element: ET.Element, path: str) -> ET.Element:
    found = element.find(path)
    if found is None:
        raise LookupError(f"Gymnasium's model has no {path}")
    return found


def _without_drawing(root: ET.Element) -> ET.Element:
    for part in root.findall("asset"):
        root.remove(part)
    for element in root.iter():
        element.attrib.pop("material", None)
        for drawn in [*element.findall("camera"), *element.findall("light")]:
            element.remove(drawn)
    return root


def _coupled_half_cheetah() -> str:
    """Two of Gymnasium's half cheetahs side by side, their torsos tied by an elastic tendon."""
    root = _without_drawing(_gymnasium_tree("HalfCheetah"))
    world, actuators = _child(root, "worldbody"), _child(root, "actuator")
    single = _child(world, "body")
    motors = list(actuators)
    world.remove(single)
    for motor in motors:
        actuators.remove(motor)
    for number, side in enumerate((-1, 1)):
        cheetah = copy.deepcopy(single)
        cheetah.set("pos", f"0 {side} .7")
        for element in cheetah.iter():
            if "name" in element.attrib:
                element.set("name", f"{element.get('name')}{number}")
        ET.SubElement(cheetah, "site", name=f"t{number}", pos="0 0 0", size="0.1")
        world.append(cheetah)
        for motor in motors:
            names = {key: f"{motor.get(key)}{number}" for key in ("joint", "name")}
            actuators.append(ET.Element("motor", {**motor.attrib, **names}))
    tendon = ET.SubElement(
        ET.SubElement(root, "tendon"), "spatial", name="tendon0", limited="true", range="1.5 3.5", stiffness="0.1"
    )
    tendon.extend(ET.Element("site", site=f"t{number}") for number in range(2))
    return ET.tostring(root, encoding="unicode")


def _many_segment_swimmer(segments: int) -> str:
    """Gymnasium's swimmer with one actuated joint for each of ``segments`` >= 2 links behind the head.

    The joints' axes alternate in sign, but for the first and the last.
    """
    root = _without_drawing(_gymnasium_tree("Swimmer"))
    torso, actuators = _child(root, "worldbody/body"), _child(root, "actuator")
    first = _child(torso, "body")
    torso.remove(first)
    link, motor = _child(first, "body"), actuators[0]
    for old in list(actuators):
        actuators.remove(old)
    parent = torso
    for index in range(segments):
        body = copy.deepcopy(link)
        body.set("name", f"link{index}")
        body.set("pos", "0.5 0 0" if index == 0 else "-1 0 0")
        last = index == segments - 1
        axis = 1 if index == 0 or last else (-1) ** (index + 1)
        _child(body, "joint").attrib.update(name=f"rot{index}", axis=f"0 0 {axis}")
        actuators.append(ET.Element("motor", {**motor.attrib, "joint": f"rot{index}"}))
        parent.append(body)
        parent = body
    return ET.tostring(root, encoding="unicode")


# A leg: (hip's number, where the hip sits, where the ankle sits from the hip, where the foot ends from the ankle,
# the ankle's axis, the ankle's range in degrees)
_FIRST_LEGS = (
    (1, "0.2 0.2 0.0", "0.2 0.2 0.0", "0.4 0.4 0.0", "-1 1 0", "30 70"),
    (2, "0.2 -0.2 0.0", "0.2 -0.2 0.0", "0.4 -0.4 0.0", "1 1 0", "30 70"),
)
_LATER_LEGS = (
    (1, "0.0 0.2 0.0", "-0.2 0.2 0.0", "-0.4 0.4 0.0", "1 1 0", "-70 -30"),
    (2, "0.0 -0.2 0.0", "-0.2 -0.2 0.0", "-0.4 -0.4 0.0", "-1 1 0", "-70 -30"),
)


def _leg(segment: int, number: int, hip: str, ankle: str, foot: str, axis: str, limits: str) -> str:
    def bone(end: str) -> str:
        return f'<geom type="capsule" size="0.08" fromto="0 0 0 {end}"/>'

    return (
        f'<body>{bone(hip)}<body pos="{hip}">'
        f'<joint name="hip{number}_{segment}" type="hinge" axis="0 0 1" range="-30 30"/>{bone(ankle)}'
        f'<body pos="{ankle}"><joint name="ankle{number}_{segment}" type="hinge" axis="{axis}" range="{limits}"/>'
        f"{bone(foot)}</body></body></body>"
    )


def _many_segment_ant(segments: int) -> str:
    """A chain of ``segments`` >= 1 rigidly joined torsos, two legs with hip and ankle on each."""
    later = "".join(
        f'<body name="torso_{segment}" pos="-1 0 0">'
        '<geom type="capsule" size="0.1" density="100" fromto="1 0 0 0 0 0"/>'
        + "".join(_leg(segment, *leg) for leg in _LATER_LEGS)
        for segment in range(1, segments)
    )
    motors = "".join(
        f'<motor joint="{joint}_{segment}" gear="150" ctrllimited="true" ctrlrange="-1 1"/>'
        for segment in range(segments)
        for joint in ("hip1", "ankle1", "hip2", "ankle2")
    )
    return (
        '<mujoco model="ant"><size nconmax="200"/><compiler angle="degree" inertiafromgeom="true"/>'
        '<option integrator="RK4" timestep="0.01"/>'
        '<default><joint armature="1" damping="1" limited="true"/>'
        '<geom conaffinity="0" condim="3" density="5.0" friction="1 0.5 0.5" margin="0.01"/></default>'
        '<worldbody><geom name="floor" type="plane" conaffinity="1" condim="3" size="40 40 40"/>'
        '<body name="torso_0" pos="0 0 0.75">'
        '<joint name="root" type="free" armature="0" damping="0" limited="false" margin="0.01"/>'
        + "".join(_leg(0, *leg) for leg in _FIRST_LEGS)
        + later
        + "</body>" * (segments - 1)
        + f"</body></worldbody><actuator>{motors}</actuator></mujoco>"
    )
