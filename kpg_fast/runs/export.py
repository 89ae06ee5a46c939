"""Runs for other tools: marl-eval's JSON (github.com/instadeepai/marl-eval) and one CSV table."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from kpg_fast.runs.records import Run, group_runs

# marl-eval reads a leading "mean" as its own, so the names must not begin with it.
_MARL_EVAL_NAMES = {
    "eval/win_rate": "win_rate",
    "eval/return_mean": "return",
    "eval/length_mean": "episode_length",
}


def marl_eval(runs: Sequence[Run]) -> tuple[dict[str, Any], list[Run]]:
    """Runs in marl-eval's structure: environment / task / algorithm / seed / step.

    Its steps are the greedy evaluations (``--eval-every``), its ``absolute_metrics`` the one at the end. marl-eval
    compares runs with equally many steps only.

    Returns:
        The structure, and the runs left out of it because they are not finished.
    """
    structure: dict[str, Any] = {}
    unfinished = [run for run in runs if not run.evaluation]
    for label, group in group_runs([run for run in runs if run.evaluation]).items():
        for run in group:
            family, _, task = run.task.partition("/")
            algorithms = structure.setdefault(family.lower(), {}).setdefault(task.lower(), {})
            algorithms.setdefault(label, {})[f"seed_{run.config.seed}"] = _steps(run)
    return structure, unfinished


def _steps(run: Run) -> dict[str, Any]:
    evaluations = [line for line in run.metrics if "eval/return_mean" in line]
    values = [
        {theirs: [line[ours]] for ours, theirs in _MARL_EVAL_NAMES.items() if math.isfinite(line.get(ours, math.nan))}
        for line in evaluations
    ]
    steps: dict[str, Any] = {
        f"step_{index}": {"step_count": int(line["env_steps"]), **measured}
        for index, (line, measured) in enumerate(zip(evaluations, values, strict=True))
    }
    return steps | {"absolute_metrics": values[-1]}


def table(runs: Sequence[Run]) -> str:
    """One CSV row for each update of each run: what the run is, then every metric (empty where not measured)."""
    columns = list(dict.fromkeys(name for run in runs for line in run.metrics for name in line))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "configuration", "env", "levels", "seed", *columns])
    for label, group in group_runs(runs).items():
        for run in group:
            facts = [run.path, label, run.task, run.config.levels, run.config.seed]
            for line in run.metrics:
                cells = [line.get(name, math.nan) for name in columns]
                writer.writerow(facts + ["" if math.isnan(value) else repr(value) for value in cells])
    return text.getvalue()
