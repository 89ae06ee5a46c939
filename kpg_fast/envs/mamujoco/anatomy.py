"""What an agent sees: joints, which of them are neighbours, and the globals every agent sees.

A joint has readings by category (``qpos``, ``qvel``, ...) and bodies, whose numbers it reads too. Everything here
states facts of Gymnasium-Robotics 1.4 (``mamujoco_v1``), whose observations are reproduced bit for bit, its oddities
included: Humanoid's abdomen_y and abdomen_z read each other, and ManySegmentAnt's joints (see there).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from kpg_fast.envs.mamujoco.catalog import num_segments
from kpg_fast.envs.mamujoco.layout import Reading

Readings = Mapping[str, tuple[Reading, ...]]
_INF = float("inf")


@dataclass(frozen=True, eq=False)
class Joint:
    """An actuated joint. Two joints are the same only if they are the same object."""

    label: str
    actuator: int
    readings: Readings
    bodies: tuple[int, ...] = ()
    body_limit: float = _INF


@dataclass(frozen=True)
class Anatomy:
    """The joints of a scenario, their neighbourhoods and what is seen of them at which distance."""

    joints: Mapping[str, Joint]
    edges: tuple[tuple[Joint, ...], ...]
    whole: tuple[Readings, ...]
    """The globals: read by every agent, first all their ``qpos``, then all their ``qvel``."""
    near: tuple[str, ...] = ("qpos", "qvel")
    """Categories read of an agent's own joints."""
    far: tuple[str, ...] = ("qpos",)
    """Categories read of its neighbours."""


def anatomy(model: Any, scenario: str, conf: str) -> Anatomy:
    """The anatomy of a scenario, with the indices of its compiled model."""
    if scenario == "ManySegmentSwimmer":
        return _many_segment_swimmer(model, num_segments(scenario, conf))
    if scenario == "ManySegmentAnt":
        return _many_segment_ant(model, num_segments(scenario, conf))
    return _BUILDERS[scenario](model)


def _joint(model: Any, name: str, senses: str = "", clip_qvel: float = _INF, **changes: Any) -> Joint:
    """A joint of the model; ``senses`` is the joint whose position, velocity and force it reads (itself)."""
    sensed = model.joint(senses or name)
    qpos, qvel = int(sensed.qposadr[0]), int(sensed.dofadr[0])
    readings = {
        "qpos": (Reading("qpos", qpos),),
        "qvel": (Reading("qvel", qvel, clip_qvel),),
        "qfrc_actuator": (Reading("qfrc_actuator", qvel),),
        **changes.pop("readings", {}),
    }
    actuators = [int(joint) for joint in model.actuator_trnid[:, 0]]
    return Joint(name, actuators.index(model.joint(name).id), readings, **changes)


def _joints(model: Any, names: str, clip_qvel: float = _INF) -> dict[str, Joint]:
    return {name: _joint(model, name, clip_qvel=clip_qvel) for name in names.split()}


def _edges(joints: Mapping[str, Joint], edges: Iterable[str]) -> tuple[tuple[Joint, ...], ...]:
    return tuple(tuple(joints[name] for name in edge.split()) for edge in edges)


def _root(model: Any, name: str, clip_qvel: float = _INF, qpos: bool = True) -> Readings:
    joint = model.joint(name)
    position = (Reading("qpos", int(joint.qposadr[0])),) if qpos else ()
    return {"qpos": position, "qvel": (Reading("qvel", int(joint.dofadr[0]), clip_qvel),)}


def _planar_root(model: Any, suffix: str = "", clip_qvel: float = _INF, order: str = "xzy") -> tuple[Readings, ...]:
    """Height, pitch and all three velocities of a body that moves in the plane; its x cannot be seen."""
    return tuple(_root(model, f"root{axis}{suffix}", clip_qvel, qpos=axis != "x") for axis in order)


def _free_root() -> tuple[Readings, ...]:
    """Height, orientation and velocities of a free body; its x and y cannot be seen."""
    return (
        {
            "qpos": tuple(Reading("qpos", index) for index in range(2, 7)),
            "qvel": tuple(Reading("qvel", index) for index in range(6)),
        },
    )


_CHEETAH_CHAIN = ("bfoot", "bshin", "bthigh", "fthigh", "fshin", "ffoot")


def _half_cheetah(model: Any) -> Anatomy:
    joints = _joints(model, " ".join(_CHEETAH_CHAIN))
    edges = [f"{one} {other}" for one, other in pairwise(_CHEETAH_CHAIN)]
    return Anatomy(joints, _edges(joints, edges), _planar_root(model))


def _hopper(model: Any) -> Anatomy:
    joints = _joints(model, "thigh_joint leg_joint foot_joint", clip_qvel=10)
    edges = ("foot_joint leg_joint", "leg_joint thigh_joint")
    return Anatomy(joints, _edges(joints, edges), _planar_root(model, clip_qvel=10))


def _walker(model: Any) -> Anatomy:
    joints = _joints(model, "thigh_joint leg_joint foot_joint thigh_left_joint leg_left_joint foot_left_joint")
    edges = (
        "foot_joint leg_joint",
        "leg_joint thigh_joint",
        "foot_left_joint leg_left_joint",
        "leg_left_joint thigh_left_joint",
        "thigh_joint thigh_left_joint",
    )
    return Anatomy(joints, _edges(joints, edges), _planar_root(model))


def _leg_bodies(model: Any, hip: str, ankle: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The bodies that a hip (torso, leg) and an ankle (leg, thigh, foot) read."""
    thigh, foot = int(model.joint(hip).bodyid[0]), int(model.joint(ankle).bodyid[0])
    leg = int(model.body_parentid[thigh])
    return (int(model.body_parentid[leg]), leg), (leg, thigh, foot)


def _ant(model: Any) -> Anatomy:
    joints = {}
    for number in range(1, 5):
        names = f"hip_{number}", f"ankle_{number}"
        for name, bodies in zip(names, _leg_bodies(model, *names), strict=True):
            joints[name] = _joint(model, name, bodies=bodies, body_limit=1.0)
    edges = [f"ankle_{number} hip_{number}" for number in range(1, 5)] + ["hip_4 hip_1 hip_2 hip_3"]
    return Anatomy(joints, _edges(joints, edges), _free_root(), near=("qpos", "qvel", "cfrc_ext"))


_HUMANOID_BODIES = {
    "abdomen_y": "torso lwaist pelvis",
    "abdomen_z": "torso lwaist pelvis",
    "abdomen_x": "pelvis right_thigh left_thigh",
    **{f"{side}_hip_{axis}": f"{side}_thigh {side}_shin" for side in ("right", "left") for axis in "xzy"},
    **{f"{side}_knee": f"{side}_shin {side}_foot" for side in ("right", "left")},
    **{
        f"{side}_shoulder{number}": f"torso {side}_upper_arm {side}_lower_arm"
        for side in ("right", "left")
        for number in (1, 2)
    },
    **{f"{side}_elbow": f"{side}_lower_arm" for side in ("right", "left")},
}


def _humanoid(model: Any) -> Anatomy:
    swapped = {"abdomen_y": "abdomen_z", "abdomen_z": "abdomen_y"}
    joints = {
        name: _joint(model, name, swapped.get(name, ""), bodies=tuple(model.body(body).id for body in bodies.split()))
        for name, bodies in _HUMANOID_BODIES.items()
    }
    abdomen = "abdomen_x abdomen_y abdomen_z"
    edges = [abdomen]
    for side in ("right", "left"):
        hips = f"{side}_hip_x {side}_hip_y {side}_hip_z"
        shoulders = f"{side}_shoulder1 {side}_shoulder2"
        edges += [
            hips,
            f"{side}_elbow {shoulders}",
            f"{side}_knee {hips}",
            f"{shoulders} {abdomen}",
            f"{abdomen} {hips}",
        ]
    near = ("qpos", "qvel", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")
    return Anatomy(joints, _edges(joints, edges), _free_root(), near=near)


def _swimmer(model: Any) -> Anatomy:
    joints = {}
    for number, name in enumerate(("motor1_rot", "motor2_rot")):
        # a joint reads one of the head's two velocities, then its own
        velocities = (Reading("qvel", number), Reading("qvel", 3 + number))
        joints[name] = _joint(model, name, readings={"qvel": velocities})
    return Anatomy(joints, _edges(joints, ["motor1_rot motor2_rot"]), (_root(model, "free_body_rot"),))


def _reacher(model: Any) -> Anatomy:
    joints = {}
    for number, name in enumerate(("joint0", "joint1")):
        readings: dict[str, tuple[Reading, ...]] = {"qpos": (Reading("sine", number), Reading("cosine", number))}
        if name == "joint1":
            readings["tip"] = tuple(Reading("tip", axis) for axis in range(3))
        joints[name] = _joint(model, name, readings=readings)
    target: tuple[Readings, ...] = ({"qpos": (Reading("qpos", -2),)}, {"qpos": (Reading("qpos", -1),)})
    return Anatomy(joints, _edges(joints, ["joint0 joint1"]), target, near=("qpos", "qvel", "tip"))


def _pusher(model: Any) -> Anatomy:
    names = (
        "r_shoulder_pan_joint r_shoulder_lift_joint r_upper_arm_roll_joint r_elbow_flex_joint r_forearm_roll_joint "
        "r_wrist_flex_joint r_wrist_roll_joint"
    )
    # Upstream both shoulder joints carry the wrist's label, so that they sort behind the upper arm and their own order
    # is left to chance; here it is always pan, lift.
    mislabelled = ("r_shoulder_pan_joint", "r_shoulder_lift_joint")
    joints = {
        name: replace(joint, label="r_wrist_roll_joint") if name in mislabelled else joint
        for name, joint in _joints(model, names).items()
    }
    edges = [f"{one} {other}" for one, other in pairwise(names.split())]
    whole: tuple[Readings, ...] = tuple(
        {"qpos": tuple(Reading("xpos", 3 * model.body(body).id + axis) for axis in range(3))}
        for body in ("tips_arm", "object", "goal")
    )
    return Anatomy(joints, _edges(joints, edges), whole)


def _coupled_half_cheetah(model: Any) -> Anatomy:
    tendon = {"tendon": tendon_readings(model)}
    joints: dict[str, Joint] = {}
    edges: list[str] = []
    for number in (0, 1):
        for name in (f"{part}{number}" for part in _CHEETAH_CHAIN):
            joints[name] = _joint(model, name, readings=tendon if name.startswith("bthigh") else {})
        edges += [f"{one}{number} {other}{number}" for one, other in pairwise(_CHEETAH_CHAIN)]
    whole = _planar_root(model, "0", order="xyz") + _planar_root(model, "1", order="xyz")
    return Anatomy(joints, _edges(joints, edges), whole, near=("qpos", "qvel", "tendon"))


def tendon_readings(model: Any) -> tuple[Reading, ...]:
    """CoupledHalfCheetah's tendon: its derivative by the torsos' x and z, its length and its velocity.

    The Jacobian is sparse since MuJoCo 3.6: one row, whose columns are in ``ten_J_colind``.
    """
    columns = [int(column) for column in model.ten_J_colind]
    dofs = [int(model.joint(name).dofadr[0]) for name in ("rootx0", "rootz0", "rootx1", "rootz1")]
    jacobian = [Reading("ten_J", columns.index(dof)) for dof in dofs]
    return (*jacobian, Reading("ten_length", 0), Reading("ten_velocity", 0))


def _many_segment_swimmer(model: Any, segments: int) -> Anatomy:
    joints = _joints(model, " ".join(f"rot{index}" for index in range(segments)))
    edges = [f"rot{index} rot{index + 1}" for index in range(segments - 1)]
    return Anatomy(joints, _edges(joints, edges), ())


def _many_segment_ant(model: Any, segments: int) -> Anatomy:
    """As upstream, where the joints of a segment read qpos and qvel far from their own, and move each other's motors.

    Hip and ankle 1 move motors 2 and 3 of their segment, hip and ankle 2 motors 0 and 1; position and velocity are read
    at -4 + 4 * (segments behind), which is right for the last segment alone. The hips of two adjacent segments are
    neighbours, but the link leads to copies of the front ones: nobody sees the segment behind, and an agent with
    several segments sees its own front hips twice.
    """
    joints: dict[str, Joint] = {}
    edges: list[tuple[Joint, ...]] = []
    before: tuple[Joint, ...] = ()
    for segment in range(segments):
        shift = 4 * (segments - 1 - segment)
        names = [f"{name}_{segment}" for name in ("hip1", "ankle1", "hip2", "ankle2")]
        bodies = _leg_bodies(model, *names[:2]) + _leg_bodies(model, *names[2:])
        for place, name in enumerate(names):
            index = place - 4 + shift
            readings = {"qpos": (Reading("qpos", index),), "qvel": (Reading("qvel", index),)}
            joints[name] = Joint(name, 4 * segment + (place + 2) % 4, readings, bodies[place], body_limit=1.0)
        hip_1, ankle_1, hip_2, ankle_2 = (joints[name] for name in names)
        edges += [(ankle_1, hip_1), (ankle_2, hip_2), (hip_1, hip_2)]
        if before:
            edges.append((*before, hip_1, hip_2))
        before = (replace(hip_1), replace(hip_2))
    return Anatomy(joints, tuple(edges), _free_root(), near=("qpos", "qvel", "cfrc_ext"))


_BUILDERS: dict[str, Callable[[Any], Anatomy]] = {
    "HalfCheetah": _half_cheetah,
    "Ant": _ant,
    "Hopper": _hopper,
    "Walker2d": _walker,
    "Humanoid": _humanoid,
    "HumanoidStandup": _humanoid,
    "Swimmer": _swimmer,
    "Reacher": _reacher,
    "Pusher": _pusher,
    "CoupledHalfCheetah": _coupled_half_cheetah,
}
