"""K-level policy gradients for multi-agent reinforcement learning, fast.

from kpg_fast import Config, train, evaluate, load

result = train(Config.make("k-mappo", "smax/2s3z", levels=2, seed=0))
evaluate(result.run_dir, episodes=512)       # {"eval/win_rate": ..., "eval/return_mean": ..., ...}
trainer = load(result.run_dir)               # ready to act, to evaluate or to train on
"""

__version__ = "0.1.0"

import torch  # noqa: F401  (before _C: both then use the OpenMP runtime that torch has loaded)

try:
    import kpg_fast._C  # noqa: F401
except ImportError as error:
    raise ImportError(f"kpg_fast's extension is not built ({error}); run: pip install -e .") from error

from kpg_fast.config import Config
from kpg_fast.k_level_step import k_level_step
from kpg_fast.runs.run import RunResult, evaluate, load, resume, train

__all__ = ["Config", "RunResult", "evaluate", "k_level_step", "load", "resume", "train"]
