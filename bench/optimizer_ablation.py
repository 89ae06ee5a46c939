"""Does Adam's momentum hurt K-level updates? K-FACMAC on HalfCheetah-2x3 with RMSProp and with Adam, seed by seed.

    python -m bench.optimizer_ablation --out runs/ablation                          3 seeds x 100 k steps
    python -m bench.optimizer_ablation --out runs/ablation --total-steps 1000000    as the paper's figure

The paper (arXiv 2509.12117, appendix E.2) finds RMSProp more stable than Adam for K2-FACMAC on this task. Stop it
whenever: the same command goes on where it was, run by run, and prints the table of what is finished.
"""

import argparse
from pathlib import Path

import numpy as np

from kpg_fast.config import Config
from kpg_fast.runs.plot import draw
from kpg_fast.runs.progress import Lines
from kpg_fast.runs.records import Run, find_runs
from kpg_fast.runs.run import resume, train

TASK = "mamujoco/HalfCheetah-2x3"
LAST = 5  # evaluations at the end of a run whose mean is its score


def one_run(path: Path, optimizer: str, levels: int, seed: int, total_steps: int) -> bool:
    """Begin a run or go on with it; whether it is finished."""
    if path.exists():
        return resume(path, Lines()).finished
    config = Config.make(
        "k-facmac",
        TASK,
        run_dir=str(path),
        optimizer=optimizer,
        levels=levels,
        seed=seed,
        total_steps=total_steps,
        eval_every=5000,
    )
    return train(config, Lines()).finished


def score(run: Run) -> float:
    """Mean return of the last greedy evaluations."""
    returns = run.curve("env_steps", "eval/return_mean")[1]
    return float(np.mean(returns[-LAST:]))


def main() -> None:
    """Run what is missing, then print and draw what there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--levels", type=int, nargs="+", default=[2])
    parser.add_argument("--total-steps", type=int, default=100_000)
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for levels in arguments.levels:
            for optimizer in ("rmsprop", "adam"):
                path = arguments.out / f"K{levels}_{optimizer}_{arguments.total_steps}" / f"seed{seed}"
                if not one_run(path, optimizer, levels, seed, arguments.total_steps):
                    return
    runs = find_runs([arguments.out])
    for levels in arguments.levels:
        for optimizer in ("rmsprop", "adam"):
            scores = [
                score(run)
                for run in runs
                if (run.config.levels, run.config.off_policy.optimizer) == (levels, optimizer)
                and run.config.total_steps == arguments.total_steps
            ]
            shown = " ".join(f"{value:.0f}" for value in scores)
            print(f"K={levels} {optimizer}: mean {np.mean(scores):.0f}, seeds {shown}")
    draw(runs, arguments.out / "plot")


if __name__ == "__main__":
    main()
