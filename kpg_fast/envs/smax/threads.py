"""Threads of numba beside those of torch."""

from functools import cache

import torch
from numba.np.ufunc import parallel


@cache
def launch() -> None:
    """Start numba's threads now, and leave torch as many as it had.

    Both use one OpenMP runtime, and numba sets its number of threads when it starts its own.
    """
    threads = torch.get_num_threads()
    parallel._launch_threads()
    torch.set_num_threads(threads)
