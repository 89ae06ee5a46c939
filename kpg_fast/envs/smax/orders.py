"""What each unit is told to do for one environment step: actions of the learner and of the scripted enemy.

Arguments as in rules.py. Orders are given from the state before the step, so their order does not matter.
"""

import math
from typing import Any

import numpy as np

from kpg_fast.envs.smax.compiled import Scalar, device
from kpg_fast.envs.smax.lanes import select
from kpg_fast.envs.smax.layout import (
    AIM,
    ALIVE,
    ATTACK,
    ATTACK_RANGE,
    ENEMY_SHOOTS,
    FAR,
    FIRST_ATTACK,
    FOR_CONTINUOUS,
    FOR_ENEMY,
    GOAL_X,
    GOAL_Y,
    MAP_SIZE,
    MOVE_X,
    MOVE_Y,
    NUM_ALLIES,
    NUM_ENEMIES,
    RANDOM_TARGET,
    SELF_PLAY,
    SIGHT,
    SLOT,
    TYPE,
    VICTIM,
    X,
    Y,
)
from kpg_fast.envs.smax.philox import philox, uniform
from kpg_fast.envs.smax.rules import length
from kpg_fast.envs.vec_env import Array

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_TURN = np.float32(2.0 * math.pi)
_CENTRE = np.float32(MAP_SIZE / 2)


@device
def draw(u: Scalar, draws: Any, purpose: Scalar, which: Scalar) -> Scalar:
    """Draw 0 or 1 of unit u in [0, 1), made when it is wanted, or ``given`` [N_units, 2] if that is not empty.

    ``draws`` is (seed, env, clock, given).
    """
    seed, env, clock, given = draws
    if given.size:
        return given[u, which]
    return uniform(philox(seed, env, clock, u, purpose)[which])


@device
def order_move(f: Array, q: Array, u: Scalar, x: Scalar, y: Scalar) -> None:
    """Order unit u to move along (x, y), as a fraction of its speed, and not to attack."""
    f[MOVE_X, u], f[MOVE_Y, u] = x, y
    q[ATTACK, u] = 0
    q[AIM, u] = -1
    q[VICTIM, u] = -1


@device
def order_discrete(f: Array, q: Array, s: Array, u: Scalar, action: Scalar) -> None:
    """Order by number: 0 north, 1 east, 2 south, 3 west, 4 stop, 5 + k stand and shoot at slot k.

    An ally's slots are the enemies in ascending order, an enemy's are the allies in descending order. A slot that
    does not exist aims at a bystander (the unit at which JaxMARL's indexing ends up) and harms nobody. Written without
    branches: what a learner does cannot be foretold, by the processor neither.
    """
    allies, units = s[NUM_ALLIES], s[NUM_ALLIES] + s[NUM_ENEMIES]
    attacks = action >= FIRST_ATTACK
    slot = action - FIRST_ATTACK
    aim = select(u < allies, allies + slot, allies - 1 - slot)
    real = attacks & (aim >= 0) & (aim < units)
    bystander = select(aim < 0, max(aim + units, 0), units - 1)
    f[MOVE_X, u] = np.float32(action == 1) - np.float32(action == 3)
    f[MOVE_Y, u] = np.float32(action == 0) - np.float32(action == 2)
    q[ATTACK, u] = select(attacks, action, 0)
    q[AIM, u] = select(attacks, select(real, aim, bystander), -1)
    q[VICTIM, u] = select(real, aim, -1)


@device
def order_continuous(f: Array, q: Array, s: Array, u: Scalar, action: Array, draws: Any) -> None:
    """Order by ``action`` = [p, q, r, theta], each meant to lie in [0, 1].

    With probability q (the first draw < q) move by r (cos 2 pi theta, sin 2 pi theta). Otherwise shoot: with
    probability p (the second draw < p) at the opponent closest to that point around oneself, dead ones included, else
    again at the last target. The two-team game clips actions, the game against the script does not: there a
    probability below 0 counts as 1 and one above 1 as 0, the outcome of JaxMARL's sampling from NaN logits.
    """
    new_target, move, r, theta = action[0], action[1], action[2], action[3]
    if s[SELF_PLAY]:
        new_target, move = min(max(new_target, _ZERO), _ONE), min(max(move, _ZERO), _ONE)
        r, theta = min(max(r, _ZERO), _ONE), min(max(theta, _ZERO), _ONE)
    angle = theta * _TURN
    x, y = r * np.float32(math.cos(angle)), r * np.float32(math.sin(angle))
    if _happens(move, draw(u, draws, FOR_CONTINUOUS, 0)):
        order_move(f, q, u, x, y)
        return
    action_number = q[ATTACK, u]
    if _happens(new_target, draw(u, draws, FOR_CONTINUOUS, 1)):
        action_number = FIRST_ATTACK + _closest_slot(f, s, u, f[X, u] + x, f[Y, u] + y)
    if action_number >= FIRST_ATTACK:
        order_discrete(f, q, s, u, action_number)
    else:
        order_move(f, q, u, _ZERO, _ZERO)


@device
def _happens(probability: Scalar, draw: Scalar) -> Scalar:
    return probability < _ZERO or (probability <= _ONE and draw < probability)


@device
def _closest_slot(f: Array, s: Array, u: Scalar, x: Scalar, y: Scalar) -> Scalar:
    """The attack slot of the opponent closest to a point; of equals the one with the lowest unit index."""
    allies, units = s[NUM_ALLIES], s[NUM_ALLIES] + s[NUM_ENEMIES]
    begin, end = (allies, units) if u < allies else (0, allies)
    best, least = begin, np.float32(np.inf)
    for v in range(begin, end):
        dx, dy = f[X, v] - x, f[Y, v] - y
        apart = length(dx, dy)
        if apart < least:
            best, least = v, apart
    return best - allies if u < allies else allies - 1 - best


@device
def spot(f: Array, q: Array, u: Scalar, v: Scalar, spotted: Array) -> None:
    """Write ``spotted[v]``: how far the script of enemy u believes v to be, FAR if unseen; ``v`` may be a block.

    It computes the distance from its observation, scaled by its sight and back.
    """
    sight = SIGHT[q[TYPE, u]]
    dx, dy = f[X, v] - f[X, u], f[Y, v] - f[Y, u]
    seen = (q[ALIVE, u] != 0) & (q[ALIVE, v] != 0) & (length(dx, dy) < sight)
    spotted[v] = select(seen, length(dx / sight * sight, dy / sight * sight), FAR)


@device
def order_script(f: Array, q: Array, s: Array, u: Scalar, spotted: Array, draws: Any) -> None:
    """Order enemy u as JaxMARL's HeuristicEnemySMAX does, from what it sees; updates its memory (SLOT, GOAL).

    It shoots at its last target while it can, else at the closest (or, by a draw, a random) ally in range; without one
    it follows a visible ally picked by another draw, or walks to the point opposite its start.
    """
    allies = s[NUM_ALLIES]
    reach = ATTACK_RANGE[q[TYPE, u]]
    last = q[SLOT, u]
    visible, shootable, target, least = 0, 0, -1, FAR
    keeps_target = False
    for slot in range(allies):
        apart = spotted[allies - 1 - slot]
        in_reach = apart < reach
        visible += apart < FAR
        shootable += in_reach
        keeps_target |= in_reach & (slot == last)
        target = slot if apart < least else target
        least = min(least, apart)
    if shootable == 0:
        q[SLOT, u] = -1
    elif not keeps_target:
        if s[RANDOM_TARGET]:
            target = _pick_slot(spotted, allies, shootable, reach, draw(u, draws, FOR_ENEMY, 1))
        q[SLOT, u] = target

    # a dead unit's observation is zero, so its script believes to stand at the origin
    alive = q[ALIVE, u] != 0
    x, y = f[X, u] if alive else _ZERO, f[Y, u] if alive else _ZERO
    if f[GOAL_X, u] == _ZERO and f[GOAL_Y, u] == _ZERO:
        f[GOAL_X, u], f[GOAL_Y, u] = _CENTRE - (x - _CENTRE), _CENTRE - (y - _CENTRE)
    if shootable > 0 and s[ENEMY_SHOOTS]:
        order_discrete(f, q, s, u, FIRST_ATTACK + q[SLOT, u])
        return
    goal_x, goal_y = f[GOAL_X, u], f[GOAL_Y, u]
    if visible > 0:
        v = allies - 1 - _pick_slot(spotted, allies, visible, FAR, draw(u, draws, FOR_ENEMY, 0))
        sight = SIGHT[q[TYPE, u]]
        goal_x = (f[X, v] - x) / sight * sight + x
        goal_y = (f[Y, v] - y) / sight * sight + y
    order_discrete(f, q, s, u, _heading(goal_x - x, goal_y - y))


@device
def _pick_slot(spotted: Array, allies: Scalar, count: Scalar, reach: Scalar, drawn: Scalar) -> Scalar:
    """One of the ``count`` seen slots closer than ``reach``, each with the same probability.

    The first one at which the cumulative probability, summed in float32, comes up to (its total) * (1 - drawn).
    """
    share = _ONE / np.float32(count)
    total = _ZERO
    for slot in range(allies):
        total += select(spotted[allies - 1 - slot] < reach, share, _ZERO)
    threshold = total * (_ONE - drawn)
    cumulative, passed = _ZERO, 0
    for slot in range(allies):  # to the end: where it stops cannot be foretold
        cumulative += select(spotted[allies - 1 - slot] < reach, share, _ZERO)
        passed += cumulative < threshold
    return passed


@device
def _heading(dx: Scalar, dy: Scalar) -> Scalar:
    """The move whose direction has the greatest dot product with (dx, dy); of equals the first."""
    best, most = 0, dy
    if dx > most:
        best, most = 1, dx
    if -dy > most:
        best, most = 2, -dy
    if -dx > most:
        best = 3
    return best
