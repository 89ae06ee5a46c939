"""How the rules are compiled: one decorator for every function that a driver calls, and a fused multiply-add.

The functions allocate nothing and only borrow their arrays. Counting references to the borrowed views would make the
threads fight over one counter (measured: twice as slow with two threads as with one), so numba's runtime is left out.
numba-cuda compiles the same functions for the GPU when a kernel calls them.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, overload

F = TypeVar("F", bound=Callable[..., Any])
Scalar = Any  # float32, int32 or bool, as numba infers it

device: Callable[[F], F] = njit(nogil=True, _nrt=False, error_model="numpy", forceinline=True)  # type: ignore[call-overload]


def multiply_add(a: Scalar, b: Scalar, c: Scalar) -> Scalar:
    """``a * b + c`` in float32, rounded once.

    Written out where XLA fuses (distances and collision pushes), because rounding is what chaotic crowds amplify:
    with it, positions in small games equal JaxMARL's bit for bit; and no compiler is left to decide.
    """
    return np.float32(np.float64(a) * np.float64(b) + np.float64(c))


@intrinsic  # type: ignore[misc]
def _fused(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@overload(multiply_add, target="cpu")
def _multiply_add_on_cpu(a, b, c):  # type: ignore[no-untyped-def]
    return lambda a, b, c: _fused(a, b, c)  # type: ignore[call-arg]
