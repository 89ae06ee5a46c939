"""Which numbers of a row of features make up each agent's observation, and the state.

Modes: ``mamujoco_v1`` (Gymnasium-Robotics: own joints, then neighbours up to ``agent_obsk`` links away, then globals),
``facmac`` (the same without the globals) and ``harl`` (every agent sees the state and a one-hot of its index, both
standardised over the numbers of the sample; Zhong et al., JMLR 2024). Shorter observations end in zeros.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kpg_fast.envs.mamujoco.anatomy import Anatomy, Joint, tendon_readings
from kpg_fast.envs.mamujoco.catalog import Partition
from kpg_fast.envs.mamujoco.layout import BODY_FIELDS, Layout, Reading, body_readings
from kpg_fast.envs.vec_env import Array

MODES = ("mamujoco_v1", "harl", "facmac")


class Plan(NamedTuple):
    """What the assembly kernel reads. A number is ``clip(features[index], -limit, limit)``."""

    obs_index: Array  # [N, O] int32
    obs_limit: Array  # [N, O] float64
    obs_clipped: bool  # whether any limit is finite
    state_index: Array  # [S] int32
    state_limit: Array  # [S] float64
    state_clipped: bool
    standardise: bool


def plan(
    model: Any, layout: Layout, scenario: str, anatomy: Anatomy, partition: Partition, mode: str, agent_obsk: int
) -> Plan:
    """The plan of a scenario in one of ``MODES``."""
    state = _state_readings(model, scenario)
    rows: list[list[tuple[int, float]]]
    if mode == "harl":
        rows = []
        for agent in range(len(partition)):
            one_hot = [layout.one if agent == other else layout.zero for other in range(len(partition))]
            rows.append(_entries(layout, state) + [(index, np.inf) for index in one_hot])
    else:
        whole = anatomy.whole if mode == "mamujoco_v1" else ()
        rows = [
            _entries(layout, _agent_readings(anatomy, [anatomy.joints[name] for name in names], whole, agent_obsk))
            for names in partition
        ]
    longest = max(len(row) for row in rows)
    padded = [row + [(layout.zero, np.inf)] * (longest - len(row)) for row in rows]
    obs_limit = np.array([[limit for _, limit in row] for row in padded], np.float64)
    state_entries = _entries(layout, state)
    state_limit = np.array([limit for _, limit in state_entries], np.float64)
    return Plan(
        obs_index=np.array([[index for index, _ in row] for row in padded], np.int32),
        obs_limit=obs_limit,
        obs_clipped=bool(np.isfinite(obs_limit).any()),
        state_index=np.array([index for index, _ in state_entries], np.int32),
        state_limit=state_limit,
        state_clipped=bool(np.isfinite(state_limit).any()),
        standardise=mode == "harl",
    )


def _entries(layout: Layout, readings: Sequence[Reading]) -> list[tuple[int, float]]:
    return [(layout.index(reading), reading.limit) for reading in readings]


def _rings(anatomy: Anatomy, own: Sequence[Joint], agent_obsk: int) -> list[list[Joint]]:
    """The agent's joints, then those one link away, and so on; each ring sorted by label."""
    rings = [sorted(own, key=lambda joint: joint.label)]
    seen = set(own)
    for _ in range(agent_obsk):
        ring = dict.fromkeys(
            other
            for edge in anatomy.edges
            if not set(edge).isdisjoint(rings[-1])
            for other in edge
            if other not in seen
        )
        seen.update(ring)
        rings.append(sorted(ring, key=lambda joint: joint.label))
    return rings


def _agent_readings(anatomy: Anatomy, own: Sequence[Joint], whole: Sequence[Any], agent_obsk: int) -> list[Reading]:
    readings: list[Reading] = []
    bodies_read: set[tuple[str, int]] = set()
    for depth, ring in enumerate(_rings(anatomy, own, agent_obsk)):
        for joint in ring:
            for category in anatomy.far if depth else anatomy.near:
                readings += joint.readings.get(category, ())
                if category not in BODY_FIELDS:
                    continue
                for body in joint.bodies:
                    if (category, body) not in bodies_read:
                        readings += body_readings(category, body, joint.body_limit)
                        bodies_read.add((category, body))
    for category in ("qpos", "qvel"):
        for part in whole:
            readings += part.get(category, ())
    return readings


def _state_readings(model: Any, scenario: str) -> list[Reading]:
    """The observation of Gymnasium's single-agent task."""

    def field(name: str, start: int, end: int, limit: float = np.inf) -> list[Reading]:
        return [Reading(name, index, limit) for index in range(start, end)]

    def bodies(name: str, limit: float = np.inf) -> list[Reading]:
        return [reading for body in range(1, model.nbody) for reading in body_readings(name, body, limit)]

    if scenario == "Reacher":
        arm = field("cosine", 0, 2) + field("sine", 0, 2) + field("qpos", 2, 4) + field("qvel", 0, 2)
        return arm + field("tip", 0, 2)
    if scenario == "Pusher":
        seen = [model.body(name).id for name in ("tips_arm", "object", "goal")]
        positions = [Reading("xpos", 3 * body + axis) for body in seen for axis in range(3)]
        return field("qpos", 0, 7) + field("qvel", 0, 7) + positions
    if scenario == "CoupledHalfCheetah":
        joints = field("qpos", 1, 9) + field("qpos", 10, 18) + field("qvel", 0, 18)
        return [*joints, *tendon_readings(model)]
    skipped = 1 if scenario in ("HalfCheetah", "Hopper", "Walker2d") else 2
    limit = 10.0 if scenario in ("Hopper", "Walker2d") else np.inf
    state = field("qpos", skipped, model.nq) + field("qvel", 0, model.nv, limit)
    if scenario in ("Ant", "ManySegmentAnt"):
        state += bodies("cfrc_ext", 1.0)
    if scenario in ("Humanoid", "HumanoidStandup"):
        state += bodies("cinert") + bodies("cvel") + field("qfrc_actuator", 6, model.nv) + bodies("cfrc_ext")
    return state
