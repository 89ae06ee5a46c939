"""A picture of one SMAX game, drawn with numpy alone.

Allies are blue, enemies red; a disc has the unit's radius and its SMAC letter (g for zergling), the bar over it is its
health, a line leads to what it was ordered to attack in the last step, and the dead leave a grey cross.
"""

import numpy as np

from kpg_fast.envs.smax import layout
from kpg_fast.envs.smax.env import SmaxEnv
from kpg_fast.envs.vec_env import Array

SIZE = 512
_SCALE = SIZE / 32  # pixels a map unit
_GROUND, _GRID, _DEAD = (24, 26, 31), (36, 39, 46), (90, 92, 98)
_TEAMS = ((70, 130, 240), (232, 84, 74))
_HEALTH, _LOST, _INK = (96, 210, 110), (70, 40, 40), (245, 245, 245)

# 5 x 5 bitmaps in the order of the unit types: marine, marauder, stalker, zealot, zergling, hydralisk
_GLYPHS = tuple(
    np.array([[c == "#" for c in row] for row in glyph.split("/")])
    for glyph in (
        "...../##.#./#.#.#/#.#.#/#.#.#",  # m
        "#...#/##.##/#.#.#/#...#/#...#",  # M
        ".####/#..../.###./....#/####.",  # s
        "#####/...#./..#../.#.../#####",  # z
        ".####/#..../#.###/#...#/.####",  # g
        "#..../#..../####./#...#/#...#",  # h
    )
)


def render_frame(env: SmaxEnv, index: int = 0) -> Array:
    """Draw environment ``index`` as it stands: uint8 [512, 512, 3], y up."""
    state = {name: value[index] for name, value in env.get_state().items()}
    frame = _ground()
    allies = env.scenario.num_allies
    centres = np.stack([state["position"][:, 0], 32 - state["position"][:, 1]], 1) * _SCALE
    for i, alive in enumerate(state["alive"]):
        target = _target(int(state["last_attack"][i]), i, allies)
        if alive and target is not None:
            _line(frame, centres[i], centres[target], _TEAMS[int(i >= allies)])
    for i in np.argsort(state["alive"], kind="stable"):
        kind = int(state["unit_type"][i])
        if not state["alive"][i]:
            _glyph(frame, centres[i], np.eye(5, dtype=bool) | np.eye(5, dtype=bool)[::-1], _DEAD, 2)
            continue
        radius = max(float(layout.UNIT_RADIUS[kind]) * _SCALE, 6.0)
        _disc(frame, centres[i], radius, _TEAMS[int(i >= allies)])
        _glyph(frame, centres[i], _GLYPHS[kind], _INK, 1)
        _bar(frame, centres[i] - (0, radius + 4), 2 * radius, float(state["health"][i]) / layout.MAX_HEALTH[kind])
    return frame


def _ground() -> Array:
    frame = np.empty((SIZE, SIZE, 3), np.uint8)
    frame[:] = _GROUND
    step = int(4 * _SCALE)
    frame[::step], frame[:, ::step] = _GRID, _GRID
    return frame


def _target(attack: int, unit: int, allies: int) -> int | None:
    """The unit that a recorded attack action of ``unit`` names; the enemies count allies backwards."""
    if attack < layout.FIRST_ATTACK:
        return None
    slot = attack - layout.FIRST_ATTACK
    return allies + slot if unit < allies else allies - 1 - slot


def _window(frame: Array, low: Array, high: Array) -> tuple[Array, Array, Array]:
    """The part of the frame between two corners, and the pixel coordinates in it."""
    x0, y0 = (int(v) for v in np.clip(np.floor(low), 0, SIZE))
    x1, y1 = (int(v) for v in np.clip(np.ceil(high) + 1, 0, SIZE))
    y, x = np.mgrid[y0:y1, x0:x1]
    return frame[y0:y1, x0:x1], x, y


def _disc(frame: Array, centre: Array, radius: float, colour: tuple[int, int, int]) -> None:
    part, x, y = _window(frame, centre - radius, centre + radius)
    part[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2] = colour


def _line(frame: Array, start: Array, end: Array, colour: tuple[int, int, int]) -> None:
    points = np.linspace(start, end, int(np.abs(end - start).max()) + 2).round().astype(int)
    inside = ((points >= 0) & (points < SIZE)).all(1)
    frame[points[inside, 1], points[inside, 0]] = colour


def _glyph(frame: Array, centre: Array, bitmap: Array, colour: tuple[int, int, int], scale: int) -> None:
    half = 2.5 * scale
    part, x, y = _window(frame, centre - half, centre + half - 1)
    column = np.clip(((x - centre[0] + half) // scale).astype(int), 0, 4)
    row = np.clip(((y - centre[1] + half) // scale).astype(int), 0, 4)
    part[bitmap[row, column]] = colour


def _bar(frame: Array, centre: Array, width: float, share: float) -> None:
    half = np.array([width / 2, 1.0])
    part, x, _ = _window(frame, centre - half, centre + half)
    part[:] = _LOST
    part[x <= centre[0] - width / 2 + width * share] = _HEALTH
