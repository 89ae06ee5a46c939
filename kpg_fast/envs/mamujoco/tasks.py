"""Gymnasium's v5 tasks: what is simulated for how long, where episodes start, what is rewarded and when they end.

Reward of one step, in Gymnasium's order of operations, with p the position that counts::

    (w_p (p' - p) / dt + healthy) - (w_a |a|^2 + min(w_c |c|^2, c_max)) - sum_k w_k |x_k - y_k|

where c are the contact forces (clipped where the task says so) and x_k, y_k are points such as fingertip and target.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kpg_fast.envs.mamujoco.layout import Layout, Reading
from kpg_fast.envs.vec_env import Array

_INF = float("inf")
_HUMANOID_FIELDS = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")


@dataclass(frozen=True)
class Task:
    """What Gymnasium fixes of a scenario; see the module for the reward."""

    frame_skip: int
    fields: tuple[str, ...] = ()
    """Fields of MjData that are read besides qpos and qvel."""
    max_episode_steps: int = 1000
    noise: float = 0.1
    """Starts are uniform in +-noise around the model's default position..."""
    normal_velocity: bool = False
    """...and so are the velocities, or normal with this standard deviation."""
    progress_weight: float = 1.0
    action_weight: float = 0.0
    healthy_reward: float = 0.0
    contact_weight: float = 0.0
    contact_limit: float = _INF
    contact_max: float = _INF
    healthy: tuple[tuple[str, int, int, float, float], ...] = ()
    """An episode terminates unless low < numbers start..end of a field < high (end 0: to its end)."""

    @property
    def contact_forces(self) -> bool:
        """Whether contact forces must be computed after a step."""
        return "cfrc_ext" in self.fields


def _closed(low: float, high: float) -> tuple[float, float]:
    """Open bounds that admit the same float64 numbers as the closed interval."""
    return float(np.nextafter(low, -np.inf)), float(np.nextafter(high, np.inf))


_ANT = Task(
    frame_skip=5,
    fields=("cfrc_ext", "xpos"),
    normal_velocity=True,
    action_weight=0.5,
    healthy_reward=1.0,
    contact_weight=5e-4,
    contact_limit=1.0,
    healthy=(("qpos", 2, 3, *_closed(0.2, 1.0)),),
)
TASKS = {
    "HalfCheetah": Task(frame_skip=5, normal_velocity=True, action_weight=0.1),
    # the mean over the cheetahs, so half the cost of each action
    "CoupledHalfCheetah": Task(
        frame_skip=5, fields=("ten_J", "ten_length", "ten_velocity"), normal_velocity=True, action_weight=0.05
    ),
    "Ant": _ANT,
    "ManySegmentAnt": _ANT,
    "Hopper": Task(
        frame_skip=4,
        noise=5e-3,
        action_weight=1e-3,
        healthy_reward=1.0,
        healthy=(
            ("qpos", 1, 2, 0.7, _INF),
            ("qpos", 2, 3, -0.2, 0.2),
            ("qpos", 2, 0, -100.0, 100.0),
            ("qvel", 0, 0, -100.0, 100.0),
        ),
    ),
    "Walker2d": Task(
        frame_skip=4,
        noise=5e-3,
        action_weight=1e-3,
        healthy_reward=1.0,
        healthy=(("qpos", 1, 2, 0.8, 2.0), ("qpos", 2, 3, -1.0, 1.0)),
    ),
    "Humanoid": Task(
        frame_skip=5,
        fields=(*_HUMANOID_FIELDS, "xipos"),
        noise=1e-2,
        progress_weight=1.25,
        action_weight=0.1,
        healthy_reward=5.0,
        contact_weight=5e-7,
        contact_max=10.0,
        healthy=(("qpos", 2, 3, 1.0, 2.0),),
    ),
    "HumanoidStandup": Task(
        frame_skip=5,
        fields=_HUMANOID_FIELDS,
        noise=1e-2,
        action_weight=0.1,
        healthy_reward=1.0,
        contact_weight=5e-7,
        contact_max=10.0,
    ),
    "Swimmer": Task(frame_skip=4, action_weight=1e-4),
    "ManySegmentSwimmer": Task(frame_skip=4, action_weight=1e-4),
    "Reacher": Task(frame_skip=2, fields=("xpos",), max_episode_steps=50, progress_weight=0.0, action_weight=1.0),
    "Pusher": Task(frame_skip=5, fields=("xpos",), max_episode_steps=100, progress_weight=0.0, action_weight=0.1),
}


class Terms(NamedTuple):
    """The reward and the end of an episode, as the kernel reads them; indices are into a row of features."""

    position_index: Array  # [P] int32
    position_weight: Array  # [P] float64: position = sum of weight * number / position_divisor
    position_divisor: float
    from_zero: bool  # the position counts itself, not its change
    dt: float
    progress_weight: float
    action_weight: float
    healthy_reward: float
    healthy_index: Array  # [H] int32
    healthy_low: Array  # [H] float64
    healthy_high: Array  # [H] float64
    contact_start: int
    contact_end: int
    contact_weight: float
    contact_limit: float
    contact_max: float
    distance_from: Array  # [D, 3] int32
    distance_to: Array  # [D, 3] int32
    distance_weight: Array  # [D] float64


def reward_terms(model: Any, layout: Layout, scenario: str) -> Terms:
    """The terms of a scenario for its compiled model."""
    task = TASKS[scenario]
    position, weights, divisor = _position(model, layout, scenario)
    bounds = [
        (layout.start[name] + index, low, high)
        for name, start, end, low, high in task.healthy
        for index in range(start, end or layout.sizes[name])
    ]
    contact = layout["cfrc_ext"] if task.contact_forces else slice(0, 0)
    distances = _distances(model, layout, scenario)
    standing_up = scenario == "HumanoidStandup"
    return Terms(
        position_index=np.array(position, np.int32),
        position_weight=np.array(weights, np.float64),
        position_divisor=divisor,
        from_zero=standing_up,
        dt=float(model.opt.timestep) * (1 if standing_up else task.frame_skip),
        progress_weight=task.progress_weight,
        action_weight=task.action_weight,
        healthy_reward=task.healthy_reward,
        healthy_index=np.array([index for index, _, _ in bounds], np.int32),
        healthy_low=np.array([low for _, low, _ in bounds], np.float64),
        healthy_high=np.array([high for _, _, high in bounds], np.float64),
        contact_start=contact.start,
        contact_end=contact.stop,
        contact_weight=task.contact_weight,
        contact_limit=task.contact_limit,
        contact_max=task.contact_max,
        distance_from=np.array([one for one, _, _ in distances], np.int32).reshape(-1, 3),
        distance_to=np.array([other for _, other, _ in distances], np.int32).reshape(-1, 3),
        distance_weight=np.array([weight for _, _, weight in distances], np.float64),
    )


def _position(model: Any, layout: Layout, scenario: str) -> tuple[list[int], list[float], float]:
    """The position that counts: indices, weights and divisor."""
    if scenario in ("Reacher", "Pusher"):
        return [], [], 1.0
    if scenario == "Humanoid":  # x of the centre of mass
        bodies = range(model.nbody)
        return (
            [layout.index(Reading("xipos", 3 * body)) for body in bodies],
            [float(model.body_mass[body]) for body in bodies],
            float(model.body_mass.sum()),
        )
    if scenario == "CoupledHalfCheetah":  # the mean x
        return [layout.index(Reading("qpos", 0)), layout.index(Reading("qpos", 9))], [1.0, 1.0], 2.0
    if scenario == "HumanoidStandup":  # height
        return [layout.index(Reading("qpos", 2))], [1.0], 1.0
    if scenario in ("Ant", "ManySegmentAnt"):  # x of the torso, as of the last substep
        return [layout.index(Reading("xpos", 3))], [1.0], 1.0
    return [layout.index(Reading("qpos", 0))], [1.0], 1.0


def _distances(model: Any, layout: Layout, scenario: str) -> list[tuple[list[int], list[int], float]]:
    """Pairs of points whose distance costs reward: indices, indices, weight."""

    def point(body: str) -> list[int]:
        return [layout.index(Reading("xpos", 3 * model.body(body).id + axis)) for axis in range(3)]

    if scenario == "Reacher":
        return [(point("fingertip"), point("target"), 1.0)]
    if scenario == "Pusher":
        return [(point("object"), point("goal"), 1.0), (point("object"), point("tips_arm"), 0.5)]
    return []


def start_state(scenario: str, qpos0: Array, num_dofs: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Draw where an episode starts, as Gymnasium does: qpos [nq] and qvel [nv]."""
    if scenario == "Reacher":
        return _reacher_start(qpos0, num_dofs, random)
    if scenario == "Pusher":
        return _pusher_start(qpos0, num_dofs, random)
    task = TASKS[scenario]
    qpos = qpos0 + random.uniform(-task.noise, task.noise, qpos0.size)
    if task.normal_velocity:
        return qpos, task.noise * random.standard_normal(num_dofs)
    return qpos, random.uniform(-task.noise, task.noise, num_dofs)


def _reacher_start(qpos0: Array, num_dofs: int, random: np.random.Generator) -> tuple[Array, Array]:
    """The arm near its default, the target anywhere within 0.2 of the shoulder."""
    qpos = qpos0 + random.uniform(-0.1, 0.1, qpos0.size)
    target = random.uniform(-0.2, 0.2, 2)
    while np.linalg.norm(target) >= 0.2:
        target = random.uniform(-0.2, 0.2, 2)
    qvel = random.uniform(-0.005, 0.005, num_dofs)
    qpos[-2:], qvel[-2:] = target, 0.0
    return qpos, qvel


def _pusher_start(qpos0: Array, num_dofs: int, random: np.random.Generator) -> tuple[Array, Array]:
    """The object to the left of the goal, at least 0.17 away; the goal in its place."""

    def draw() -> Array:
        return np.array([random.uniform(-0.3, 0.0), random.uniform(-0.2, 0.2)])

    target = draw()
    while np.linalg.norm(target) <= 0.17:
        target = draw()
    qpos, qvel = qpos0.copy(), random.uniform(-0.005, 0.005, num_dofs)
    qpos[-4:-2], qpos[-2:], qvel[-4:] = target, 0.0, 0.0
    return qpos, qvel
