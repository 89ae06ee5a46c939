"""Toy games with closed forms: ``make("toy/climbing", num_envs=32)``, or the game itself by :func:`make_game`."""

import inspect
from collections.abc import Callable
from typing import Any

from kpg_fast.envs.toy.games import Game, MatrixGame, MeetUp, QuadraticGame, climbing, meet_up_payoff, penalty
from kpg_fast.envs.toy.games import quadratic as random_quadratic
from kpg_fast.envs.toy.games import stag_hunt as stag_hunt_game
from kpg_fast.envs.toy.one_shot import OneShotGame, TeamGame, team_matrix_game
from kpg_fast.envs.vec_env import VecEnv
from kpg_fast.errors import UsageError, unknown_name

__all__ = ["make_env", "make_game", "names"]


def _meetup(num_agents: int = 2) -> MeetUp:
    return MeetUp(num_agents)


def _quadratic(num_agents: int = 3, size: int = 2, game_seed: int = 0) -> QuadraticGame:
    return random_quadratic(num_agents, size, game_seed)


_GAMES: dict[str, Callable[..., Game]] = {
    "meetup": _meetup,
    "stag_hunt": stag_hunt_game,
    "penalty": penalty,
    "climbing": climbing,
    "quadratic": _quadratic,
}

_BOUND = 3.0
"""Continuous actions lie in [-3, 3]; every optimum and every start lies inside."""


def names() -> list[str]:
    """Every game there is."""
    return list(_GAMES)


def make_game(name: str, **options: Any) -> Game:
    """The game with its exact gradients.

    Args:
        name: one of :func:`names`.
        options: ``num_agents`` (meetup, quadratic), ``size`` and ``game_seed`` (quadratic), ``punishment`` (penalty).

    Raises:
        UsageError: an unknown game or option, or fewer than two agents.
    """
    if name not in _GAMES:
        raise unknown_name("toy game", name, _GAMES)
    known = inspect.signature(_GAMES[name]).parameters
    for option in options:
        if option not in known:
            if not known:
                raise UsageError(f"toy/{name} has no options, but was given {option}")
            raise unknown_name(f"option of toy/{name}", option, known)
    if options.get("num_agents", 2) < 2:
        raise UsageError(f"num_agents = {options['num_agents']}: a game needs at least 2")
    if options.get("size", 1) < 1:
        raise UsageError(f"size = {options['size']}: must be at least 1")
    return _GAMES[name](**options)


def make_env(name: str, num_envs: int, seed: int = 0, device: str = "cpu", **options: Any) -> VecEnv:
    """A batch of one-move episodes; see :func:`make_game` for the options. ``seed`` is not used: nothing is random."""
    if num_envs < 1:
        raise UsageError(f"num_envs = {num_envs}: must be at least 1")
    if device != "cpu":
        raise UsageError(f"toy games run on the cpu, not on {device!r}")
    return OneShotGame(f"toy/{name}", _team_game(make_game(name, **options)), num_envs)


def _team_game(game: Game) -> TeamGame:
    if isinstance(game, MatrixGame):
        return team_matrix_game(game)
    if isinstance(game, QuadraticGame):
        best = float(game.team_payoff(game.equilibrium()))
        return TeamGame(game.num_agents, game.size, game.team_payoff, best, _BOUND)
    return TeamGame(game.num_agents, game.size, meet_up_payoff, 0.0, _BOUND)
