"""Algorithm 1 on games with exact gradients, drawn beside its closed form.

Plain gradient steps, so the measured contraction ratio Delta_{k+1} / Delta_k is what the theory speaks of.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kpg_fast.envs.toy import make_game
from kpg_fast.envs.toy.games import Game, MeetUp, meet_up_factor
from kpg_fast.envs.vec_env import Array
from kpg_fast.errors import UsageError
from kpg_fast.kpg import k_level_update
from kpg_fast.runs.directory import making, provenance_of


@dataclass(frozen=True, kw_only=True)
class ToyOptions:
    """One toy run. ``num_agents`` and ``lr`` left out give the regimes of :func:`regimes_of`."""

    env: str = "toy/meetup"
    levels: int = 4
    """The largest K; every K from 1 to this is run from the same start."""
    steps: int = 20
    """Joint updates of each path."""
    lr: float | None = None
    """eta."""
    num_agents: int | None = None
    """N, for the games that leave it open (meetup, quadratic)."""
    seed: int = 0
    """Where the paths start."""

    def check(self) -> None:
        """Raise ``UsageError`` for a value that cannot be run."""
        for name in ("levels", "steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.lr is not None and not self.lr > 0:
            raise UsageError(f"lr = {self.lr}: must be above 0")
        if self.seed < 0:
            raise UsageError(f"seed = {self.seed}: must be at least 0")


@dataclass(frozen=True)
class Regime:
    """A game and a step size, with what is to be seen there."""

    title: str
    game: Game
    lr: float


@dataclass(frozen=True)
class LevelPath:
    """What K levels do from one start."""

    levels: int
    theta: Array
    """[steps + 1, N, P]."""
    distance: Array
    """[steps + 1]: disagreement, or what the game calls its distance."""
    deltas: Array
    """[steps, K]: Delta_k = sum_i |theta_i^(k) - theta_i^(k-1)|."""


def k_level_step(game: Game, theta: Array, levels: int, lr: float) -> tuple[Array, Array]:
    """One K-level gradient step with the exact gradients.

    Args:
        game: whose gradients.
        theta: [N, P].
        levels: K.
        lr: eta.

    Returns:
        theta^(K) [N, P] and Delta_1..Delta_K [K].
    """
    reached = [theta]

    def step(theta: Array, grad: Array, k: int) -> Array:
        reached.append(theta + lr * grad)
        return reached[k]

    theta_k = k_level_update(theta, levels, theta, game.gradient, step, lambda theta_k: theta_k)
    deltas = np.linalg.norm(np.diff(np.stack(reached), axis=0), axis=2).sum(1)
    return theta_k, deltas


def follow(game: Game, start: Array, levels: int, lr: float, steps: int) -> LevelPath:
    """The path of ``steps`` K-level updates from ``start`` [N, P]."""
    theta, deltas = [start], []
    for _ in range(steps):
        after, delta = k_level_step(game, theta[-1], levels, lr)
        theta.append(after)
        deltas.append(delta)
    return LevelPath(levels, np.stack(theta), np.array([game.distance(t) for t in theta]), np.stack(deltas))


def regimes_of(options: ToyOptions) -> list[Regime]:
    """What a run shows.

    Meet-up with its step size left open gives two regimes: three agents with eta = 0.5, where f_K = (-1/2)^K and every
    level helps, and two agents with eta = 0.98, where odd K over-steps and even K under-steps and little is gained.
    """
    scenario = options.env.removeprefix("toy/")
    given = {} if options.num_agents is None else {"num_agents": options.num_agents}
    if scenario == "meetup" and options.lr is None and options.num_agents is None:
        return [
            Regime("every level helps: 3 agents, eta = 0.5", MeetUp(3), 0.5),
            Regime("odd and even levels differ: 2 agents, eta = 0.98", MeetUp(2), 0.98),
        ]
    lr = 0.3 if options.lr is None else options.lr
    game = make_game(scenario, **given)
    return [Regime(f"{options.env}: {game.num_agents} agents, eta = {lr:g}", game, lr)]


def closed_form(regime: Regime, path: LevelPath) -> Array | None:
    """The disagreement [steps + 1] that theory gives for the path, where it gives one."""
    if not isinstance(regime.game, MeetUp):
        return None
    factor = meet_up_factor(regime.game.num_agents, regime.lr, path.levels)
    result: Array = path.distance[0] * np.abs(factor) ** np.arange(len(path.distance))
    return result


def run(options: ToyOptions) -> list[tuple[Regime, list[LevelPath]]]:
    """Follow every K in every regime, all from one start each."""
    options.check()
    result = []
    for regime in regimes_of(options):
        start = regime.game.start(np.random.default_rng(options.seed))
        with np.errstate(over="ignore", invalid="ignore"):
            paths = [follow(regime.game, start, k, regime.lr, options.steps) for k in range(1, options.levels + 1)]
        if not all(np.isfinite(path.theta).all() and np.isfinite(path.distance).all() for path in paths):
            raise UsageError(f"lr = {regime.lr:g}: the paths of {options.steps} steps leave the range of numbers")
        result.append((regime, paths))
    return result


def train_toy(options: ToyOptions, run_dir: str | Path) -> dict[str, float]:
    """Run and keep it all in a new directory, whole or not at all.

    That is ``config.json`` with the provenance, ``metrics.jsonl`` (a line a step, K and regime), ``paths.png`` and
    ``paths.svg``.

    Args:
        options: what to run.
        run_dir: a directory that does not exist yet.

    Returns:
        The last distance of each K, named ``distance/K`` (of the first regime).

    Raises:
        UsageError: bad options, ``run_dir`` exists or cannot be made, or matplotlib is missing.
    """
    from kpg_fast.toy.plot import draw

    results = run(options)
    rows = [row for regime, paths in results for path in paths for row in _rows(regime, path)]
    config = {"algorithm": "kpg", **asdict(options), "provenance": provenance_of({})}
    with making(Path(run_dir), {"config.json": config}) as aside:
        (aside / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        draw(results, aside)
    return {f"distance/{path.levels}": float(path.distance[-1]) for path in results[0][1]}


def _rows(regime: Regime, path: LevelPath) -> list[dict[str, Any]]:
    theory = closed_form(regime, path)
    rows = []
    for t in range(len(path.distance)):
        row: dict[str, Any] = {
            "regime": regime.title,
            "lr": regime.lr,
            "num_agents": regime.game.num_agents,
            "levels": path.levels,
            "step": t,
            "distance": float(path.distance[t]),
            "payoff": regime.game.payoff(path.theta[t]).tolist(),
            "theta": path.theta[t].tolist(),
        }
        if theory is not None:
            row["closed_form"] = float(theory[t])
        if t:
            row["delta"] = path.deltas[t - 1].tolist()
        rows.append(row)
    return rows
