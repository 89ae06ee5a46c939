"""How threads share games: each takes the next piece when it is through with its last, so none waits for a slow one."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kpg_fast.envs.smax.compiled import Scalar, device
from kpg_fast.envs.vec_env import Array


@intrinsic  # type: ignore[misc]
def _fetch_and_add(typing_context: Any, counter: Any, amount: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        amount = context.cast(builder, arguments[1], signature.args[1], types.int64)
        return builder.atomic_rmw("add", builder.bitcast(data, ir.IntType(64).as_pointer()), amount, "monotonic")

    return types.int64(counter, amount), generate


PIECE = 16  # games at most, some 20 us of work or more
PIECES = 4  # a thread at least, where there are as many games


@device
def piece(games: Scalar, threads: Scalar) -> Scalar:
    """How many games a thread takes at once."""
    return max(1, min(PIECE, games // (PIECES * threads)))


@device
def take(counter: Array, amount: Scalar) -> Scalar:
    """What ``counter`` [1] int64 was before ``amount`` was added, in one step that no other thread can come between."""
    return _fetch_and_add(counter, amount)  # type: ignore[call-arg]
