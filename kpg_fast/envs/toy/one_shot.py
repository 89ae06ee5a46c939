"""Toy games as batches of environments: an episode is one move, the reward is the team's payoff of the joint action.

There is nothing to see (the observation and the state are a constant 1), so a policy is a point of the game: the
expected reward of deterministic policies with ``action = x_i`` is the payoff J at x.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kpg_fast.envs.toy.games import MatrixGame
from kpg_fast.envs.vec_env import Array, EnvSpec, StepArrays
from kpg_fast.errors import UsageError


class TeamGame(NamedTuple):
    """What an environment needs of a game."""

    num_agents: int
    num_actions: int
    """Actions to choose from, or components of a continuous action."""
    payoff: Callable[[Array], Array]
    """Joint actions [E, N] (or [E, N, A]) -> rewards [E]."""
    best: float
    """The largest reward there is; coming within 0.01 of it counts as a win."""
    bound: float | None = None
    """Continuous actions lie in [-bound, bound]; ``None``: actions are indices."""


def team_matrix_game(game: MatrixGame) -> TeamGame:
    """The matrix game whose reward is the mean of the agents' payoffs."""
    team = game.team_payoff

    def payoff(action: Array) -> Array:
        result: Array = team[tuple(action.T)]
        return result

    return TeamGame(game.num_agents, game.size, payoff, float(team.max()))


class OneShotGame:
    """A batch of one-move episodes of a :class:`TeamGame` (a ``VecEnv``; nothing in it is random)."""

    def __init__(self, name: str, game: TeamGame, num_envs: int) -> None:
        shape = (game.num_agents, game.num_actions)
        high = None if game.bound is None else np.full(shape, game.bound, np.float32)
        self.game = game
        self.spec = EnvSpec(
            name=name,
            num_envs=num_envs,
            num_agents=game.num_agents,
            obs_size=1,
            state_size=1,
            num_actions=game.num_actions,
            max_episode_steps=1,
            action_low=None if high is None else -high,
            action_high=high,
            facts={"reward": "the team's payoff", "episode": "one move"},
        )

    def reset(self, out: StepArrays) -> None:
        """Begin everywhere."""
        for constant in (out.obs, out.state, out.avail_actions, out.alive):
            constant.fill(1)

    def step(self, action: Array, out: StepArrays) -> None:
        """Pay for the joint action and begin anew.

        Raises:
            UsageError: an index that is no action, or a number that is not finite.
        """
        if self.spec.continuous:
            if not np.isfinite(action).all():
                raise UsageError("an action is not a finite number")
            action = np.clip(action, self.spec.action_low, self.spec.action_high)
        elif action.min() < 0 or action.max() >= self.spec.num_actions:
            raise UsageError(f"actions of {self.spec.name} are 0 to {self.spec.num_actions - 1}")
        out.reward[:] = self.game.payoff(action)
        out.won[:] = out.reward >= self.game.best - 0.01
        out.terminated.fill(True)
        out.truncated.fill(False)
        out.valid.fill(True)
        out.last_obs.fill(1)
        out.last_state.fill(1)
        self.reset(out)

    def step_async(self, action: Array, out: StepArrays) -> None:
        """The whole step: it is too short to split."""
        self.step(action, out)

    def step_wait(self) -> None:
        """Nothing is under way."""

    def state_dict(self) -> dict[str, Array]:
        """Empty: episodes are one move and nothing is random."""
        return {}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Accept what :meth:`state_dict` gave."""
        if state:
            raise UsageError(f"{self.spec.name} keeps no state, but was given {', '.join(sorted(state))}")

    def close(self) -> None:
        """Nothing is held."""
