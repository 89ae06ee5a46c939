"""The picture of a toy run: a row a regime, a panel of paths for each K, and the distance per step of all K."""

from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kpg_fast.envs.toy.games import MatrixGame, MeetUp, softmax
from kpg_fast.envs.vec_env import Array
from kpg_fast.errors import UsageError

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise UsageError('drawing needs matplotlib; run: pip install -e ".[plot]"') from error

if TYPE_CHECKING:
    from kpg_fast.toy.train import LevelPath, Regime

_MOST_PANELS = 6


def draw(results: "list[tuple[Regime, list[LevelPath]]]", run_dir: Path) -> None:
    """Write ``paths.png`` and ``paths.svg``."""
    shown = min(len(results[0][1]), _MOST_PANELS)
    figure = Figure(figsize=(2.6 * shown + 4.2, 3.1 * len(results)), layout="constrained")
    rows = figure.subfigures(len(results), 1, squeeze=False)[:, 0]
    for row, (regime, paths) in zip(rows, results, strict=True):
        row.suptitle(regime.title, fontsize=11)
        axes = row.subplots(1, shown + 1, width_ratios=[1.0] * shown + [1.6])
        for ax, path in zip(axes[:shown], paths, strict=False):
            _draw_paths(ax, regime, path)
        _match_limits(axes[:shown])
        _draw_distance(axes[-1], regime, paths)
    for suffix in ("png", "svg"):
        figure.savefig(run_dir / f"paths.{suffix}", dpi=130)


def _places(regime: "Regime", theta: Array) -> tuple[Array, str, str]:
    """Where each agent is drawn, [steps + 1, N, 2], with the names of the axes."""
    if isinstance(regime.game, MatrixGame):
        policy = softmax(theta)
        return policy[..., :2], "P(action 0)", "P(action 1)"
    if theta.shape[-1] == 1:
        return np.concatenate([theta, np.zeros_like(theta)], -1), "x", ""
    return theta[..., :2], "x", "y"


def _draw_paths(ax: Any, regime: "Regime", path: "LevelPath") -> None:
    places, x_name, y_name = _places(regime, path.theta)
    for agent in range(places.shape[1]):
        line = ax.plot(places[:, agent, 0], places[:, agent, 1], lw=0.8, marker=".", ms=4, alpha=0.7)[0]
        ax.plot(*places[0, agent], "o", ms=6, mfc="white", color=line.get_color())
        ax.plot(*places[-1, agent], "*", ms=9, color=line.get_color())
    ax.set_title(f"K = {path.levels}", fontsize=10)
    ax.set_xlabel(x_name, fontsize=8)
    ax.set_ylabel(y_name, fontsize=8)
    ax.tick_params(labelsize=7)


def _match_limits(axes: Any) -> None:
    """The same scale in all panels of a row, so that the paths can be compared."""
    x = [limit for ax in axes for limit in ax.get_xlim()]
    y = [limit for ax in axes for limit in ax.get_ylim()]
    for ax in axes:
        ax.set(xlim=(min(x), max(x)), ylim=(min(y), max(y)))


def _draw_distance(ax: Any, regime: "Regime", paths: "list[LevelPath]") -> None:
    from kpg_fast.toy.train import closed_form

    for path, marker in zip(paths, cycle("os^vDP")):
        steps = np.arange(len(path.distance))
        line = ax.plot(steps, path.distance, marker, ms=4, label=f"K = {path.levels}")[0]
        theory = closed_form(regime, path)
        if theory is None:
            line.set_linestyle("-")
        else:
            ax.plot(steps, theory, "-", lw=1, color=line.get_color())
    ax.set_yscale("log")
    # below this the marks are rounding, not the game
    floor = 1e-12 * paths[0].distance[0]
    least = min(float(path.distance.min()) for path in paths)
    ax.set_ylim(bottom=max(least, floor) / 2)
    meet_up = isinstance(regime.game, MeetUp)
    ax.set_title("marks: measured, lines: closed form" if meet_up else "distance from the goal", fontsize=9)
    ax.set_xlabel("update", fontsize=8)
    ax.set_ylabel("disagreement" if meet_up else "distance", fontsize=8)
    ax.tick_params(which="both", labelsize=7)
    ax.legend(fontsize=7)
