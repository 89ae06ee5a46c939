"""What a finished run leaves beside its metrics: result.json, marl_eval.json and the plot."""

from importlib.util import find_spec

from kpg_fast.errors import UsageError
from kpg_fast.runs import export
from kpg_fast.runs.directory import RunDirectory, read_provenance
from kpg_fast.runs.records import Run


def write_result(directory: RunDirectory) -> None:
    """Write the result files of a finished run from what its directory already holds."""
    run = Run.read(directory.path)
    if not run.metrics:
        raise UsageError(f"{directory.path / 'metrics.jsonl'} is empty or missing: there is no result to write")
    last, config = run.metrics[-1], run.config
    result = {
        "algorithm": config.algorithm,
        "levels": config.levels,
        "env": config.env,
        "seed": config.seed,
        "preset": config.preset,
        "env_steps": last["env_steps"],
        "seconds": last["seconds"],
        "evaluation": {"policy": "greedy"} | run.evaluation,
    }
    directory.write_json("result.json", result | read_provenance(directory.path))
    directory.write_json("marl_eval.json", export.marl_eval([run])[0])
    if find_spec("matplotlib"):
        from kpg_fast.runs import plot

        plot.draw([run], directory.path / "plot")
