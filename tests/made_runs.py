"""Run directories with curves that nobody trained."""

from contextlib import closing
from pathlib import Path

import numpy as np

from kpg_fast.config import Config
from kpg_fast.runs.directory import RunDirectory
from kpg_fast.runs.metrics import MetricsLog

UPDATES = 20


def made_run(path: Path, seed: int = 0, updates: int = UPDATES, evaluations: int = 1, **values: object) -> Path:
    """A run whose win rate rises along a sigmoid; it is finished if ``updates`` is not given."""
    shape = {"num_envs": 4, "num_steps": 8} | ({} if "algorithm" in values else {"num_minibatches": 2})
    config = Config.make(seed=seed, total_steps=32 * UPDATES, **(shape | values))
    rng = np.random.default_rng(seed + 100 * config.levels)
    speed = rng.uniform(0.8, 1.2)
    with (
        closing(RunDirectory.create(path, config, {"flavour": "default"})),
        MetricsLog(path, 0, config.env) as log,
    ):
        for update in range(1, updates + 1):
            won = float(1 / (1 + np.exp(-speed * (update - 8 - seed) / 2)))
            line = {
                "update": update,
                "env_steps": 32 * update,
                "seconds": update * speed,
                "win_rate": float("nan") if update == 1 else won,
                "return_mean": 2 * won - 1,
                "length_mean": 30 - 10 * won,
            }
            if update % (UPDATES // evaluations) == 0:
                line |= {"eval/win_rate": won, "eval/return_mean": 2 * won, "eval/length_mean": 20.0}
            log.write(line)
    return path
