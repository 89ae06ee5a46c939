"""A rule called for a block of units does to each what it does when called for that unit alone."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from kpg_fast.envs.smax import layout, make_env
from kpg_fast.envs.smax.compiled import device
from kpg_fast.envs.smax.lanes import bits, block, copy_features, spread
from kpg_fast.envs.smax.layout import LANES
from kpg_fast.envs.smax.observe import look
from kpg_fast.envs.smax.orders import spot
from kpg_fast.envs.smax.rules import advance, danger, near, overlap

VIEWER = 3


@device
def advance_rule(f, q, s, u, view):  # type: ignore[no-untyped-def]
    advance(f, q, s, u)


@device
def look_rule(f, q, s, u, view):  # type: ignore[no-untyped-def]
    look(f, q, VIEWER, u, view)


@device
def spot_rule(f, q, s, u, view):  # type: ignore[no-untyped-def]
    spot(f, q, VIEWER, u, view[0])


def both(rule: Callable[..., None]) -> tuple[Callable[..., None], Callable[..., None]]:
    """Functions of (f, q, s, view) that apply a rule unit by unit and block by block."""

    @device
    def one_by_one(f, q, s, view):  # type: ignore[no-untyped-def]
        for u in range(f.shape[1]):
            rule(f, q, s, u, view)

    @device
    def by_blocks(f, q, s, view):  # type: ignore[no-untyped-def]
        for first in range(0, f.shape[1], LANES):
            rule(f, q, s, block(first), view)

    return one_by_one, by_blocks


def game(seed: int, columns: int = 2 * LANES) -> tuple[np.ndarray, np.ndarray]:
    """Units crowded on a small part of the map, some dead, some at a wall."""
    rng = np.random.default_rng(seed)
    f = rng.uniform(-1, 4, (layout.FLOAT_ROWS, columns)).astype(np.float32)
    f[layout.HEALTH] = rng.integers(0, 20, columns)
    f[layout.DAMAGE] = rng.integers(0, 10, columns)
    q = rng.integers(0, 2, (layout.INT_ROWS, columns)).astype(np.int32)
    q[layout.ALIVE, VIEWER] = 1
    q[layout.TYPE] = rng.integers(0, layout.NUM_TYPES, columns)
    return f, q


@pytest.mark.parametrize("rule", [advance_rule, look_rule, spot_rule])
@pytest.mark.parametrize("walls_kill", [0, 1])
def test_a_block_is_its_units(rule: Callable[..., None], walls_kill: int) -> None:
    settings = np.zeros(layout.SETTINGS, np.int32)
    settings[layout.WALLS_KILL] = walls_kill
    one_by_one, by_blocks = both(rule)
    for seed in range(20):
        results = []
        for apply in (one_by_one, by_blocks):
            f, q = game(seed)
            view = np.full((layout.VIEW_ROWS, f.shape[1]), np.nan, np.float32)
            before = f.copy(), q.copy()
            apply(f, q, settings, view)
            results.append((f, q, view))
        for single, blocks in zip(*results, strict=True):
            np.testing.assert_array_equal(single, blocks)
        changed = [not np.array_equal(a, b) for a, b in zip(before, results[1][:2], strict=True)]
        assert any(changed) == (rule is advance_rule)
        assert np.isnan(results[1][2][0]).all() == (rule is advance_rule)


@pytest.mark.parametrize("name", ["3m", "2s3z", "6z_vs_24zg", "smacv2_5_units"])
def test_collision_is_never_missed(name: str) -> None:
    """``near`` lets through every pair with an overlap; it keeps out those far apart and a unit itself."""
    env = make_env(name, 1)
    settings, scenario = env._settings, env.scenario
    types = set(range(layout.NUM_TYPES) if scenario.random_types else scenario.ally_types + scenario.enemy_types)
    kept, rng = 0, np.random.default_rng(0)
    for u, v in itertools.product(types, repeat=2):
        reach = layout.UNIT_RADIUS[u] + layout.UNIT_RADIUS[v]
        limit = danger(settings, layout.UNIT_RADIUS[u])
        for _ in range(2_000):
            angle, apart = rng.uniform(0, 6.3), reach * np.float32(rng.choice([0.3, 1 - 1e-6, 1, 1 + 1e-6, 1.01, 4]))
            dx, dy = np.float32(apart * np.cos(angle)), np.float32(apart * np.sin(angle))
            assert near(dx, dy, limit) or overlap(dx, dy, reach) == 0
            kept += not near(dx, dy, limit)
        assert not near(np.float32(0), np.float32(0), limit)
    assert kept > 300 * len(types) ** 2


@device
def mark(values, limit, target):  # type: ignore[no-untyped-def]
    for first in range(0, values.size, LANES):
        at = block(first)
        target[at] = spread(np.float32(bits(values[at] > limit)))


def test_bits_has_one_for_every_lane() -> None:
    for lane in range(LANES):
        values, target = np.zeros(3 * LANES, np.float32), np.full(3 * LANES, 9, np.float32)
        values[LANES + lane] = 2
        mark(values, np.float32(1), target)
        assert target.reshape(3, LANES).tolist() == [[0] * LANES, [1 << lane] * LANES, [0] * LANES]


@device
def copy(features, row, target, at):  # type: ignore[no-untyped-def]
    copy_features(features, row, target, at)


def test_copied_features_are_the_row() -> None:
    features = np.arange(48, dtype=np.float32).reshape(3, layout.FEATURE_COLUMNS)
    target = np.zeros(40, np.float32)
    copy(features, 2, target, 5)
    assert target[5 : 5 + layout.UNIT_FEATURES].tolist() == features[2, : layout.UNIT_FEATURES].tolist()
    assert not target[:5].any()
    assert not target[5 + layout.FEATURE_COLUMNS :].any()
