"""The table and the figure of what a level costs, from the rows of bench/overhead.py.

A level's marginal cost is (t_K - t_1) / (K - 1) in percent of t_1, t_K being the seconds of an iteration with K levels,
measured in the same run; beside it stand that of K-MAPPO as it is usually written and the 27 % of the paper (arXiv
2509.12117).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

PREFIX = "overhead.k_mappo/"
PAPER = 27.0


class Level(NamedTuple):
    """Seconds an iteration with K levels and with one: ours, and the usual implementation's."""

    ours: float
    one: float
    plain: float
    plain_one: float

    def marginal(self, levels: int) -> tuple[float, float]:
        """A level's cost in percent of K = 1: ours, the usual one's."""
        return tuple(  # type: ignore[return-value]
            100 * (t / one - 1) / (levels - 1) for t, one in ((self.ours, self.one), (self.plain, self.plain_one))
        )


def by_setting(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, Level]]:
    """``map/preset`` -> K -> seconds; of cases measured several times the last."""
    medians = {row["case"]: row["median"] for row in rows if row["case"].startswith(PREFIX)}
    found: dict[str, dict[int, Level]] = {}
    for case, ours in medians.items():
        if "#" not in case:
            setting, levels = case.removeprefix(PREFIX).rsplit("/K", 1)
            others = (medians[f"{case}#{name}"] for name in ("K1", "plain", "plain K1"))
            found.setdefault(setting, {})[int(levels)] = Level(ours, *others)
    return {setting: dict(sorted(found[setting].items())) for setting in found}


def table(found: dict[str, dict[int, Level]]) -> Table:
    """A line for every setting and K."""
    made = Table(title=f"seconds an iteration, and a level's marginal cost in % of K = 1 (the paper: {PAPER:.0f} %)")
    made.add_column("setting")
    for heading in ("K", "seconds", "a level", "usual, seconds", "a level"):
        made.add_column(heading, justify="right")
    for setting, levels in found.items():
        for k, level in levels.items():
            ours, plain = (f"{x:.0f} %" for x in level.marginal(k)) if k > 1 else ("", "")
            made.add_row(setting, str(k), f"{level.ours:.2f}", ours, f"{level.plain:.1f}", plain)
    return made


def draw(found: dict[str, dict[int, Level]], path: Path) -> None:
    """Time over K in units of K = 1: ours in full lines, the usual implementation dashed, the paper dotted.

    Args:
        found: of :func:`by_setting`.
        path: of the PNG; written aside and renamed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    most = max(max(levels) for levels in found.values())
    for number, (setting, levels) in enumerate(found.items()):
        color = f"C{number}"
        axes.plot(list(levels), [x.ours / x.one for x in levels.values()], "o-", color=color, label=setting)
        axes.plot(list(levels), [x.plain / x.plain_one for x in levels.values()], "--", color=color, alpha=0.6)
    ks = range(1, most + 1)
    axes.plot(
        ks, [1 + PAPER / 100 * (k - 1) for k in ks], ":", color="black", label=f"the paper: {PAPER:.0f} % a level"
    )
    axes.set(xlabel="K", ylabel="time of an iteration / that of K = 1", xticks=list(ks))
    axes.grid(alpha=0.3)
    figure.legend(title="full: kpg_fast\ndashed: as usually written", fontsize="small", loc="outside right upper")
    aside = path.with_suffix(".part.png")
    figure.savefig(aside, dpi=120)
    aside.replace(path)
