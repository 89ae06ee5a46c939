"""How the rules are compiled: one decorator for every function that a driver calls.

The functions allocate nothing and only borrow their arrays. Counting references to the borrowed views would make the
threads fight over one counter (measured: twice as slow with two threads as with one), so numba's runtime is left out.
numba-cuda compiles the same functions for the GPU when a kernel calls them.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])
Scalar = Any  # float32, int32 or bool, as numba infers it

device: Callable[[F], F] = njit(nogil=True, _nrt=False, error_model="numpy")  # type: ignore[call-overload]
