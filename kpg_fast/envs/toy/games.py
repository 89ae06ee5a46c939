"""Games small enough to have exact gradients: meet-up, matrix games with softmax policies, quadratic games.

Sizes: N agents, P parameters of each. ``theta`` and ``others`` are float64 [N, P]; ``gradient(theta, others)`` is
grad_i J_i(theta_i, others_{-i}) for all agents: row i takes its own parameters from ``theta`` and everyone else's from
``others``, which is what a level of Algorithm 1 asks for.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kpg_fast.envs.vec_env import Array
from kpg_fast.errors import UsageError


class Game(Protocol):
    """A game with payoffs J_i(theta) that are known exactly, as are their gradients."""

    @property
    def num_agents(self) -> int:
        """N."""

    @property
    def size(self) -> int:
        """P: parameters of each agent."""

    def payoff(self, theta: Array) -> Array:
        """J_i [N] at the joint parameters [N, P]."""

    def gradient(self, theta: Array, others: Array) -> Array:
        """grad_i J_i(theta_i, others_{-i}), [N, P]."""

    def start(self, rng: np.random.Generator) -> Array:
        """Parameters [N, P] to begin a path with."""

    def distance(self, theta: Array) -> float:
        """How far ``theta`` is from what the agents should reach; 0 there."""


@dataclass(frozen=True)
class MeetUp:
    """N agents in the plane want to be where the others are: J_i = J = -1/2 sum_{i<j} |x_i - x_j|^2."""

    num_agents: int = 2
    size: int = 2

    def payoff(self, theta: Array) -> Array:
        """J, the same for all: [N]."""
        return np.full(self.num_agents, float(meet_up_payoff(theta)))

    def gradient(self, theta: Array, others: Array) -> Array:
        """sum_{j != i} (x_j - x_i), [N, 2]."""
        towards: Array = others.sum(0) - others - (self.num_agents - 1) * theta
        return towards

    def start(self, rng: np.random.Generator) -> Array:
        """Places drawn from the unit disc's enclosing square."""
        return rng.uniform(-1, 1, (self.num_agents, self.size))

    def distance(self, theta: Array) -> float:
        """Disagreement: the norm of all the distances from the mean place."""
        return float(np.linalg.norm(theta - theta.mean(0)))


def meet_up_payoff(places: Array) -> Array:
    """-1/2 sum_{i<j} |x_i - x_j|^2 of places [..., N, P], by N times the spread about the mean."""
    n = places.shape[-2]
    about_mean = places - places.mean(-2, keepdims=True)
    result: Array = -0.5 * n * np.square(about_mean).sum((-2, -1))
    return result


def meet_up_factor(num_agents: int, lr: float, levels: int) -> float:
    """f_K = 1 - n eta (1 - (-eta)^K) / (1 + eta): what one K-level step multiplies the disagreement by."""
    return 1 - num_agents * lr * (1 - (-lr) ** levels) / (1 + lr)


@dataclass(frozen=True, eq=False)
class MatrixGame:
    """A game in normal form; agent i plays action a with probability softmax(theta_i)[a].

    ``payoffs`` is [N, A, ..., A]: agent i's payoff for every joint action.
    """

    payoffs: Array

    @property
    def num_agents(self) -> int:
        """N."""
        return int(self.payoffs.shape[0])

    @property
    def size(self) -> int:
        """A: actions, and so logits, of each agent."""
        return int(self.payoffs.shape[1])

    @property
    def team_payoff(self) -> Array:
        """The mean of all agents' payoffs for every joint action, [A, ..., A]: what a team is rewarded with."""
        mean: Array = self.payoffs.mean(0)
        return mean

    def payoff(self, theta: Array) -> Array:
        """Expected payoffs [N]."""
        policy = softmax(theta)
        return np.array([self._action_values(i, policy) @ policy[i] for i in range(self.num_agents)])

    def gradient(self, theta: Array, others: Array) -> Array:
        """d J_i / d theta_i[a] = pi_i(a) (Q_i(a) - J_i), Q_i against the others' policies, [N, A]."""
        own, theirs = softmax(theta), softmax(others)
        values = np.stack([self._action_values(i, theirs) for i in range(self.num_agents)])
        gradient: Array = own * (values - (own * values).sum(1, keepdims=True))
        return gradient

    def start(self, rng: np.random.Generator) -> Array:
        """Logits near the uniform policy."""
        return rng.normal(0, 0.5, (self.num_agents, self.size))

    def distance(self, theta: Array) -> float:
        """What the team's expected payoff lacks of the best joint action's."""
        return float(self.team_payoff.max() - self.payoff(theta).mean())

    def _action_values(self, agent: int, policy: Array) -> Array:
        """Expected payoff [A] of each of ``agent``'s actions against the others' ``policy``."""
        values = np.moveaxis(self.payoffs[agent], agent, 0)
        for other in range(self.num_agents - 1, -1, -1):
            if other != agent:
                values = values @ policy[other]
        result: Array = values
        return result


def softmax(logits: Array) -> Array:
    """Probabilities over the last axis."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    result: Array = weights / weights.sum(-1, keepdims=True)
    return result


def stag_hunt() -> MatrixGame:
    """Two hunters (Skyrms 2004): the stag takes both and feeds them best, the hare is safe. Actions: stag, hare."""
    row = np.array([[4.0, 0.0], [3.0, 3.0]])
    return MatrixGame(np.stack([row, row.T]))


def penalty(punishment: float = -100.0) -> MatrixGame:
    """Penalty game (Claus and Boutilier 1998): two optima of 10, a safe 2, and ``punishment`` for mixing the optima."""
    team = np.array([[10.0, 0.0, punishment], [0.0, 2.0, 0.0], [punishment, 0.0, 10.0]])
    return MatrixGame(np.stack([team, team]))


def climbing() -> MatrixGame:
    """Climbing game (Claus and Boutilier 1998): the optimum of 11 stands beside a loss of 30."""
    team = np.array([[11.0, -30.0, 0.0], [-30.0, 7.0, 6.0], [0.0, 0.0, 5.0]])
    return MatrixGame(np.stack([team, team]))


@dataclass(frozen=True, eq=False)
class QuadraticGame:
    """g_i = sum_j H_ij x_j + b_i: the game whose Jacobian H is any matrix with symmetric diagonal blocks.

    J_i = 1/2 x_i H_ii x_i + x_i (sum_{j != i} H_ij x_j + b_i). With H symmetric all agents' gradients are those of the
    one payoff 1/2 x H x + b x, which is then J_i for all.

    ``jacobian`` is [N, P, N, P], ``offset`` b is [N, P].
    """

    jacobian: Array
    offset: Array

    def __post_init__(self) -> None:
        for i in range(self.num_agents):
            block = self.jacobian[i, :, i]
            if not np.allclose(block, block.T):
                raise UsageError(f"the diagonal block of agent {i} is not symmetric, so it is no gradient's Jacobian")

    @property
    def num_agents(self) -> int:
        """N."""
        return int(self.offset.shape[0])

    @property
    def size(self) -> int:
        """P."""
        return int(self.offset.shape[1])

    @property
    def matrix(self) -> Array:
        """The game Jacobian as [N P, N P]."""
        total = self.num_agents * self.size
        return self.jacobian.reshape(total, total)

    @property
    def off_diagonal(self) -> Array:
        """BD: the Jacobian without the agents' own blocks, [N P, N P]."""
        between = self.jacobian.copy()
        for i in range(self.num_agents):
            between[i, :, i] = 0
        total = self.num_agents * self.size
        return between.reshape(total, total)

    @property
    def common_payoff(self) -> bool:
        """Whether one payoff serves all agents."""
        return bool(np.allclose(self.matrix, self.matrix.T))

    def payoff(self, theta: Array) -> Array:
        """J_i [N]."""
        if self.common_payoff:
            return np.full(self.num_agents, float(self.team_payoff(theta)))
        own_blocks = np.einsum("ipiq->ipq", self.jacobian)
        own = np.einsum("ip,ipq,iq->i", theta, own_blocks, theta)
        linear = np.einsum("ip,ipjq,jq->i", theta, self.jacobian, theta) + (theta * self.offset).sum(1)
        result: Array = linear - 0.5 * own
        return result

    def team_payoff(self, places: Array) -> Array:
        """1/2 x H x + b x of places [..., N, P]; the payoff of all where H is symmetric."""
        flat = places.reshape(*places.shape[:-2], -1)
        result: Array = 0.5 * ((flat @ self.matrix) * flat).sum(-1) + flat @ self.offset.ravel()
        return result

    def gradient(self, theta: Array, others: Array) -> Array:
        """H_ii x_i + sum_{j != i} H_ij x_j + b_i, [N, P]."""
        between = np.einsum("ipjq,jq->ip", self.jacobian, others)
        own = np.einsum("ipiq,iq->ip", self.jacobian, theta - others)
        result: Array = between + own + self.offset
        return result

    def equilibrium(self) -> Array:
        """Where every agent's gradient is zero, [N, P]."""
        return np.linalg.solve(self.matrix, -self.offset.ravel()).reshape(self.offset.shape)

    def start(self, rng: np.random.Generator) -> Array:
        """Standard normal places."""
        return rng.standard_normal(self.offset.shape)

    def distance(self, theta: Array) -> float:
        """Euclidean distance from the equilibrium."""
        return float(np.linalg.norm(theta - self.equilibrium()))


def quadratic(num_agents: int = 3, size: int = 2, seed: int = 0) -> QuadraticGame:
    """A random concave common payoff: H symmetric with eigenvalues in [-1.5, -0.5], its maximum inside [-1, 1]."""
    rng = np.random.default_rng(seed)
    total = num_agents * size
    basis, _ = np.linalg.qr(rng.standard_normal((total, total)))
    matrix = basis @ np.diag(rng.uniform(-1.5, -0.5, total)) @ basis.T
    best = rng.uniform(-1, 1, total)
    jacobian = ((matrix + matrix.T) / 2).reshape(num_agents, size, num_agents, size)
    return QuadraticGame(jacobian, (-matrix @ best).reshape(num_agents, size))
