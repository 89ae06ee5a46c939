"""Curves of one or many runs: win rate and return over environment steps and over wall-clock.

A line is the interquartile mean over seeds; the band is its 95 % stratified-bootstrap interval and is missing where
there is one seed; dots are greedy evaluations.
"""

from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from kpg_fast.errors import UsageError
from kpg_fast.runs.records import Run, group_runs, has_winners
from kpg_fast.runs.statistics import Array, stratified_bootstrap
from kpg_fast.store.files import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_X = {"env_steps": "environment steps (millions)", "seconds": "wall-clock (minutes, evaluations included)"}
_X_UNIT = {"env_steps": 1e6, "seconds": 60.0}
_Y = {"win_rate": "win rate", "return_mean": "return"}
_POINTS = 200
_LABEL_WIDTH, _LABEL_HEIGHT = 200, 0.19  # letters of a line of the legend; inches
# Okabe and Ito's colours, told apart by colour-blind readers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def draw(runs: Sequence[Run], target: Path) -> list[Path]:
    """Draw ``runs`` to ``target``.png and ``target``.svg.

    Args:
        runs: any mix of configurations, seeds and environments; one row of panels for each environment and quantity.
        target: path without suffix.

    Returns:
        The two files.

    Raises:
        UsageError: matplotlib is not installed, no episode has ended yet, or the files cannot be written.
    """
    figure_class = _figure_class()
    if not target.name:
        raise UsageError(f"{target} cannot name the files: give a path without suffix")
    runs = [run for run in runs if run.metrics]
    groups = group_runs(runs)
    rows = _rows(runs, groups.values())
    if not rows:
        raise UsageError("nothing to plot: no episode has ended in an update that is logged")
    figure = figure_class(figsize=(14, 1 + 3.2 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(_X), squeeze=False, sharey="row")
    for (title, y, tasks), row in zip(rows, axes, strict=True):
        for x, panel in zip(_X, row, strict=True):
            for colour, (label, group) in zip(cycle(_COLOURS), groups.items(), strict=False):
                _draw_configuration(
                    panel, [[run for run in group if run.task == task] for task in tasks], x, y, label, colour
                )
            _dress(panel, x, y)
        row[0].set_title(f"{title}: {_Y[y]}", loc="left", fontsize=10)
    figure.suptitle(_title(runs), fontsize=11)
    _explain(figure, axes[:, -1])
    files = [target.with_name(f"{target.name}.{suffix}") for suffix in ("png", "svg")]
    for file in files:
        aside = file.with_name(f".{file.name}.partial")
        with writing(file):
            target.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(aside, format=file.suffix[1:], dpi=150)
            aside.replace(file)
    return files


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure  # no pyplot: nothing global, no display
    except ImportError as error:
        raise UsageError("plots need matplotlib: pip install 'kpg_fast[plot]'") from error
    return Figure


def _rows(runs: Sequence[Run], groups: Iterable[Sequence[Run]]) -> list[tuple[str, str, list[str]]]:
    """Title, quantity and environments of each row; one more for a common win rate if a group has all environments."""
    tasks = list(dict.fromkeys(run.task for run in runs))
    rows = [(task, y, [task]) for task in tasks for y in _Y if _measured(runs, task, y)]
    with_wins = [task for task in tasks if _measured(runs, task, "win_rate")]
    if len(with_wins) > 1 and any({run.task for run in group} >= set(with_wins) for group in groups):
        rows.append(("all environments", "win_rate", with_wins))
    return rows


def _measured(runs: Sequence[Run], task: str, y: str) -> bool:
    """While training or by a greedy evaluation."""
    if y == "win_rate" and not has_winners(task):
        return False
    return any(run.curve("env_steps", name).size for run in runs if run.task == task for name in (y, f"eval/{y}"))


def _draw_configuration(panel: "Axes", strata: list[list[Run]], x: str, y: str, label: str, colour: str) -> None:
    """One configuration; the runs of each environment are a stratum, and one without any leaves it without a line."""
    if len(strata) == 1:
        for run in strata[0]:
            dots = run.curve(x, f"eval/{y}")
            panel.plot(
                dots[0] / _X_UNIT[x], dots[1], "o", color=colour, markersize=4, markeredgecolor="white", zorder=3
            )
    curves = [[curve for curve in (run.curve(x, y) for run in runs) if curve.shape[1]] for runs in strata]
    if not all(curves):
        return
    grid, scores = on_one_grid([curve for stratum in curves for curve in stratum])
    sizes = [len(stratum) for stratum in curves]
    estimate = stratified_bootstrap(np.split(scores, np.cumsum(sizes)[:-1]))
    seeds = "1 seed" if sum(sizes) == 1 else f"{sum(sizes)} runs" if len(strata) > 1 else f"{sum(sizes)} seeds"
    panel.plot(grid / _X_UNIT[x], estimate.iqm, color=colour, label=f"{label} ({seeds})", linewidth=1.5)
    if max(sizes) > 1:
        panel.fill_between(grid / _X_UNIT[x], estimate.low, estimate.high, color=colour, alpha=0.2, linewidth=0)


def on_one_grid(curves: Sequence[Array]) -> tuple[Array, Array]:
    """Curves [2, points] of different lengths on the stretch they share: grid [P] and values [runs, P].

    Between two points of a run its value is interpolated; nothing is extrapolated.
    """
    start = max(curve[0, 0] for curve in curves)
    end = min(curve[0, -1] for curve in curves)
    if all(len(curve[0]) == len(curves[0][0]) and (curve[0] == curves[0][0]).all() for curve in curves):
        grid = curves[0][0]
    else:
        grid = np.linspace(start, max(start, end), _POINTS)
    return grid, np.stack([np.interp(grid, curve[0], curve[1]) for curve in curves])


def _explain(figure: Any, panels: Sequence["Axes"]) -> None:
    """A legend of all panels' lines, below them: a label names every setting that differs, which may be many."""
    lines: dict[str, Any] = {}
    for panel in panels:
        for line, label in zip(*panel.get_legend_handles_labels(), strict=True):
            lines.setdefault(fill(label, _LABEL_WIDTH, break_long_words=False), line)
    if lines:
        figure.set_figheight(figure.get_figheight() + _LABEL_HEIGHT * sum(1 + label.count("\n") for label in lines))
        figure.legend(lines.values(), lines.keys(), loc="outside lower left", fontsize=8, frameon=False)


def _dress(panel: "Axes", x: str, y: str) -> None:
    panel.set_xlabel(_X[x], fontsize=9)
    panel.set_ylabel(_Y[y], fontsize=9)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.25, linewidth=0.5)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlim(left=0)
    if y == "win_rate":
        panel.set_ylim(-0.02, 1.02)


def _title(runs: Sequence[Run]) -> str:
    algorithms = ", ".join(dict.fromkeys(run.config.algorithm for run in runs))
    levels = ", ".join(str(k) for k in sorted({run.config.levels for run in runs}))
    tasks = ", ".join(dict.fromkeys(run.task for run in runs))
    note = "line: IQM while training, band: 95 % stratified bootstrap over seeds, dots: greedy evaluation"
    return f"{algorithms}, K = {levels}, {tasks}\n{note}"
