"""Memory that a batch of workers shares with the process that asks them: an anonymous file that goes with them."""

import mmap
import os
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from kpg_fast.envs.vec_env import Array, EnvSpec, StepArrays

_ALIGNMENT = 64


@dataclass
class Board:
    """What workers and their supervisor tell each other; every row has one writer at a time."""

    arrays: StepArrays
    action: NDArray[np.int32]
    """[E, N], what to do next."""
    fought: NDArray[np.bool_]
    """[E], whether the step under way has its results."""
    max_reward: NDArray[np.float64]
    """[E], what rewards are scaled by."""


def create() -> int:
    """A new memory; the descriptor can be inherited."""
    descriptor = os.memfd_create("kpg-fast-smac")
    os.set_inheritable(descriptor, True)
    return descriptor


def attach(descriptor: int, spec: EnvSpec) -> Board:
    """The board in this memory, which grows to its size where it is smaller."""
    blank = StepArrays.empty(spec)
    shapes: list[tuple[tuple[int, ...], np.dtype[np.generic]]] = [
        (getattr(blank, field.name).shape, getattr(blank, field.name).dtype) for field in fields(StepArrays)
    ]
    e = spec.num_envs
    shapes += [((e, spec.num_agents), np.dtype(np.int32)), ((e,), np.dtype(np.bool_)), ((e,), np.dtype(np.float64))]
    sizes = [int(np.prod(shape)) * dtype.itemsize for shape, dtype in shapes]
    starts = np.cumsum([0, *(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)])
    os.ftruncate(descriptor, max(int(starts[-1]), os.fstat(descriptor).st_size))
    memory = mmap.mmap(descriptor, int(starts[-1]))
    parts: list[Array] = [
        np.frombuffer(memory, dtype, int(np.prod(shape)), int(start)).reshape(shape)
        for (shape, dtype), start in zip(shapes, starts[:-1], strict=True)
    ]
    names = [field.name for field in fields(StepArrays)]
    arrays = StepArrays(**dict(zip(names, parts, strict=False)))
    return Board(arrays, *parts[len(names) :])
