"""What this machine can do at best: its products and its memory, as the benchmark measures them.

A shared machine's speed varies by the minute, so a peak is taken right before and right after what is held against it.
"""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np
import torch

from bench.measure import PeakName, in_turns

SIDE = 2048  # of the square matrices
BYTES = 256 << 20  # copied, which no cache holds
UNITS = {"fp32": "GFLOP/s of a float32 product", "bf16": "GFLOP/s of a bf16 product", "memory": "GB/s moved by memcpy"}


def peak(name: PeakName) -> float:
    """Operations, or bytes read and written, a second: the best of a few calls with every core."""
    work, call = (2 * BYTES, large_memcpy()) if name == "memory" else (2 * SIDE**3, _product(name))
    return work / min(in_turns({name: call}, repeats=5, warmup=1)[name])


@cache
def _product(name: PeakName) -> Callable[[], object]:
    dtype = torch.float32 if name == "fp32" else torch.bfloat16
    a, b = (torch.randn(SIDE, SIDE, dtype=dtype) for _ in range(2))
    return partial(torch.mm, a, b)


@cache
def large_memcpy() -> Callable[[], None]:
    """Copy ``BYTES`` with the C library, a share a core."""
    libc, cores = ctypes.CDLL(None), torch.get_num_threads()
    libc.memcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    libc.memcpy.restype = ctypes.c_void_p
    src, dst, pool = np.ones(BYTES, np.uint8), np.zeros(BYTES, np.uint8), ThreadPoolExecutor(cores)
    share = BYTES // cores

    def part(index: int) -> None:
        libc.memcpy(dst.ctypes.data + index * share, src.ctypes.data + index * share, share)

    return lambda: list(pool.map(part, range(cores))).clear()
