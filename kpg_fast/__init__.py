"""K-level policy gradients for multi-agent reinforcement learning, fast."""

__version__ = "0.1.0"

import torch  # noqa: F401  (before _C: both then use the OpenMP runtime that torch has loaded)

try:
    import kpg_fast._C  # noqa: F401
except ImportError as error:
    raise ImportError(f"kpg_fast's extension is not built ({error}); run: pip install -e .") from error
