"""Algorithm 1 of K-level policy gradients (arXiv 2509.12117).

    theta_i^(k) = theta_i + eta * grad_i J_i(theta_i, theta_{-i}^(k-1)),   k = 1..K, all agents at once

Every level starts from the same theta, so the committed update is one optimiser step away from it. Nothing is
differentiated through the others' updates.
"""

from collections.abc import Callable
from typing import TypeVar

Theta = TypeVar("Theta")
Others = TypeVar("Others")
Gradient = TypeVar("Gradient")


def k_level_update(
    theta: Theta,
    levels: int,
    level_one_others: Others,
    policy_gradient: Callable[[Theta, Others], Gradient],
    step: Callable[[Theta, Gradient, int], Theta],
    anticipate: Callable[[Theta], Others],
) -> Theta:
    """Run K levels from ``theta`` and return theta^(K).

    Args:
        theta: the actors' parameters, level 0.
        levels: K >= 1; 1 is the base algorithm.
        level_one_others: what the others are taken to do at level 1.
        policy_gradient: ``(theta, others)`` -> grad_i J_i(theta_i, others) for all agents.
        step: ``(theta, grad, k)`` -> theta^(k), one optimiser step from theta written elsewhere; theta and the
            optimiser's state stay as they are.
        anticipate: ``(theta_k)`` -> what the level-k policies do on this batch; no gradient.
    """
    others = level_one_others
    for k in range(1, levels + 1):
        grad = policy_gradient(theta, others)
        theta_k = step(theta, grad, k)
        if k < levels:
            others = anticipate(theta_k)
    return theta_k
