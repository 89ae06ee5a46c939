"""Checkpoints written while training goes on: the caller waits for one copy of the tensors, a thread does the rest."""

import os
import threading
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kpg_fast import _C
from kpg_fast.store import checkpoint
from kpg_fast.store.checkpoint import Array

_ALIGNMENT = 64  # bytes; any type may lie there


class BackgroundCheckpoint:
    """Takes snapshots of tensors and writes them to disk from a thread of its own; one at a time.

    The memory of a snapshot is kept for the next one of the same size.
    """

    def __init__(self) -> None:
        self._memory: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def start(self, path: str | os.PathLike[str], tensors: Mapping[str, Array], meta: Mapping[str, Any]) -> bool:
        """Snapshot ``tensors`` and begin to write them as :func:`kpg_fast.store.checkpoint.save` does.

        What is written is their state at this call, whatever becomes of them afterwards. ``meta`` must not be changed
        until :meth:`wait` returns.

        Returns:
            False where the last checkpoint is still being written; nothing is copied then: try again later.

        Raises:
            UsageError: the last checkpoint could not be written.
            TypeError: see :func:`kpg_fast.store.checkpoint.save`.
        """
        if self._thread is not None and self._thread.is_alive():
            return False
        self.wait()
        snapshot = self._copy(tensors)
        self._thread = threading.Thread(target=self._write, args=(path, snapshot, dict(meta)), name="checkpoint")
        self._thread.start()
        return True

    def wait(self) -> None:
        """Return when the last checkpoint is on disk.

        Raises:
            UsageError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _copy(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        sources = {name: checkpoint.as_tensor(name, value) for name, value in tensors.items()}
        ends = list(
            accumulate((-(-source.nbytes // _ALIGNMENT) * _ALIGNMENT for source in sources.values()), initial=0)
        )
        if self._memory.size < ends[-1]:
            self._memory = _C.Slab(ends[-1]).array()
        copies = [self._memory[at:][: source.nbytes] for at, source in zip(ends, sources.values(), strict=False)]
        _C.copy_many([checkpoint.as_bytes(source) for source in sources.values()], copies)
        result: dict[str, Array] = {}
        for (name, source), copy in zip(sources.items(), copies, strict=True):
            tensor = torch.from_numpy(copy).view(source.dtype).view(source.shape)
            result[name] = tensor.numpy() if isinstance(tensors[name], np.ndarray) else tensor
        return result

    def _write(self, path: str | os.PathLike[str], tensors: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
        try:
            checkpoint.save(path, tensors, meta)
        except Exception as error:  # raised again in the caller's thread
            self._error = error
