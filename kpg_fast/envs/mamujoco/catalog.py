"""Which scenarios there are and how their joints are shared out among agents; needs no MuJoCo.

A name is ``scenario-agent_conf``, e.g. ``HalfCheetah-2x3`` or ``Humanoid-9|8``. Partitions have the names they have in
Gymnasium-Robotics' MaMuJoCo (``mamujoco_v1``); those that the literature took from HARL (Zhong et al., JMLR 2024) are
marked. Within an agent the order of the joints is the order of its actions.
"""

import re

from kpg_fast.errors import UsageError, unknown_name

Partition = tuple[tuple[str, ...], ...]

_UPPER_BODY = (
    "abdomen_x abdomen_y abdomen_z right_shoulder1 right_shoulder2 right_elbow left_shoulder1 left_shoulder2 left_elbow"
)
_LOWER_BODY = "right_hip_x right_hip_y right_hip_z right_knee left_hip_x left_hip_y left_hip_z left_knee"
_HUMANOID = {
    "9|8": f"{_UPPER_BODY} | {_LOWER_BODY}",
    "17x1": (  # HARL
        "left_shoulder1 | left_shoulder2 | abdomen_x | abdomen_y | abdomen_z | right_shoulder1 | right_shoulder2 | "
        "right_elbow | left_elbow | left_hip_x | left_hip_y | left_hip_z | right_hip_x | right_hip_y | right_hip_z | "
        "right_knee | left_knee"
    ),
}
_CHEETAH_0 = "bthigh0 bshin0 bfoot0 fthigh0 fshin0 ffoot0"
_CHEETAH_1 = "bthigh1 bshin1 bfoot1 fthigh1 fshin1 ffoot1"

_PARTITIONS = {
    "HalfCheetah": {
        "2x3": "bthigh bshin bfoot | fthigh fshin ffoot",
        "6x1": "bthigh | bshin | bfoot | fthigh | fshin | ffoot",
        "3x2": "bfoot bshin | bthigh ffoot | fshin fthigh",  # HARL
    },
    "Ant": {
        "2x4": "hip_1 ankle_1 hip_2 ankle_2 | hip_3 ankle_3 hip_4 ankle_4",
        "2x4d": "hip_1 ankle_1 hip_4 ankle_4 | hip_2 ankle_2 hip_3 ankle_3",
        "4x2": "hip_1 ankle_1 | hip_2 ankle_2 | hip_3 ankle_3 | hip_4 ankle_4",
        "8x1": "hip_1 | ankle_1 | hip_2 | ankle_2 | hip_3 | ankle_3 | hip_4 | ankle_4",  # HARL
    },
    "Hopper": {"3x1": "thigh_joint | leg_joint | foot_joint"},
    "Walker2d": {
        "2x3": "foot_joint leg_joint thigh_joint | foot_left_joint leg_left_joint thigh_left_joint",
        "6x1": "foot_joint | leg_joint | thigh_joint | foot_left_joint | leg_left_joint | thigh_left_joint",  # HARL
        "3x2": "foot_joint leg_joint | thigh_joint foot_left_joint | leg_left_joint thigh_left_joint",  # HARL
    },
    "Humanoid": _HUMANOID,
    "HumanoidStandup": _HUMANOID,
    "Swimmer": {"2x1": "motor1_rot | motor2_rot"},
    "Reacher": {"2x1": "joint0 | joint1"},
    "Pusher": {
        "3p": "r_shoulder_pan_joint r_shoulder_lift_joint r_upper_arm_roll_joint | r_elbow_flex_joint | "
        "r_forearm_roll_joint r_wrist_flex_joint r_wrist_roll_joint"
    },
    "CoupledHalfCheetah": {"1p1": f"{_CHEETAH_0} | {_CHEETAH_1}"},
}
# Scenarios of any length: agents x segments per agent, with the fewest segments whose model can be built.
_FEWEST_SEGMENTS = {"ManySegmentSwimmer": 2, "ManySegmentAnt": 1}
_MOST_SEGMENTS = 100  # a model is built in a second; from there on a swimmer's start alone can be unstable
_SEGMENTED_EXAMPLES = ("ManySegmentSwimmer-10x2", "ManySegmentSwimmer-6x1", "ManySegmentAnt-2x3", "ManySegmentAnt-3x1")
_FORM = "Names look like HalfCheetah-2x3: scenario, hyphen, agent_conf."


def scenarios() -> list[str]:
    """The scenarios, without agent_conf."""
    return sorted([*_PARTITIONS, *_FEWEST_SEGMENTS])


def names() -> list[str]:
    """Every name, and examples of the ManySegment scenarios, which take other ``agents x segments``."""
    fixed = [f"{scenario}-{conf}" for scenario, partitions in _PARTITIONS.items() for conf in partitions]
    return sorted([*fixed, *_SEGMENTED_EXAMPLES])


def parse(name: str) -> tuple[str, str]:
    """Split ``scenario-agent_conf`` and check both.

    Raises:
        UsageError: unknown scenario or agent_conf, with the nearest names.
    """
    scenario, hyphen, conf = name.partition("-")
    if not hyphen:
        raise unknown_name("MAMuJoCo name", name, names(), _FORM)
    if scenario in _FEWEST_SEGMENTS:
        _segments(scenario, conf)
    elif scenario not in _PARTITIONS:
        raise unknown_name("MAMuJoCo scenario", scenario, scenarios(), _FORM)
    elif conf not in _PARTITIONS[scenario]:
        raise unknown_name(f"agent_conf of {scenario}", conf, _PARTITIONS[scenario], _FORM)
    return scenario, conf


def num_segments(scenario: str, conf: str) -> int:
    """Segments of the whole animal of a ManySegment scenario."""
    agents, each = _segments(scenario, conf)
    return agents * each


def partition(scenario: str, conf: str) -> Partition:
    """The joints of each agent, by name, in the order of its actions."""
    if scenario not in _FEWEST_SEGMENTS:
        return tuple(tuple(agent.split()) for agent in _PARTITIONS[scenario][conf].split("|"))
    agents, each = _segments(scenario, conf)
    template = ("rot{}",) if scenario == "ManySegmentSwimmer" else ("hip1_{}", "ankle1_{}", "hip2_{}", "ankle2_{}")
    of_segment = [tuple(joint.format(segment) for joint in template) for segment in range(agents * each)]
    return tuple(sum(of_segment[agent * each : (agent + 1) * each], ()) for agent in range(agents))


def _segments(scenario: str, conf: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})", conf)
    fewest = _FEWEST_SEGMENTS[scenario]
    if match is None or not fewest <= int(match[1]) * int(match[2]) <= _MOST_SEGMENTS:
        raise UsageError(
            f"unknown agent_conf {conf!r} of {scenario}: it is AGENTSxSEGMENTS_PER_AGENT with {fewest} to "
            f"{_MOST_SEGMENTS} segments in all, e.g. {scenario}-2x3."
        )
    return int(match[1]), int(match[2])
