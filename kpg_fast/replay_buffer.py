"""Experience to sample from: a ring of rows, in memory or in a file, a row a transition or an episode.

A row holds all fields side by side, so that a sample is read in one place (one page where the ring is a file) and a
minibatch is one gather, without a Python object a sample.
"""

import fcntl
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kpg_fast.errors import UsageError

_HEADER = 8  # int64: the magic number, rows, width, rows written since the ring was new; the rest is spare
_MAGIC = 0x4B50475245504C59  # "KPGREPLY"
_PAGE = 4096  # bytes before the first row in a file


class Columns:
    """Where each named field lies in a row of float32 numbers.

    Args:
        shapes: field -> shape, in the order of memory; ``()`` is one number.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self.offsets: dict[str, int] = {}
        self.width = 0
        for name, shape in self.shapes.items():
            self.offsets[name] = self.width
            self.width += prod(shape)

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """Split ``rows`` [..., width] into ``field -> [..., *shape]``, views of the same memory."""
        fields = {}
        for name, shape in self.shapes.items():
            part = rows.narrow(-1, self.offsets[name], prod(shape))
            fields[name] = part.view((*part.shape[:-1], *shape))
        return fields


class Ring:
    """The last ``capacity`` rows that were added.

    Args:
        capacity: rows that can be sampled.
        width: float32 numbers of a row.
        path: keep the rows in this file instead of memory, so that they may exceed it. One process at a time.
        spare: rows kept beyond ``capacity`` in a file: as many rows as these can be added after a checkpoint before one
            that it counts on is overwritten.

    Raises:
        UsageError: the file is in use, of other sizes, or cannot be written.
    """

    def __init__(self, capacity: int, width: int, path: Path | None = None, spare: int = 0) -> None:
        self.capacity, self.width, self.path = capacity, width, path
        self.written = 0
        """Rows added since the ring was new."""
        if path is None:
            self.total = capacity
            # np.empty: the system hands out a page when it is first written, so an unused ring costs nothing
            self.rows = torch.from_numpy(np.empty((capacity, width), np.float32))
            self._header = np.zeros(_HEADER, np.int64)
        else:
            self.total = capacity + spare
            self.rows = self._open(path)

    def _open(self, path: Path) -> Tensor:
        nbytes = _PAGE + self.total * self.width * 4
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+b" if path.exists() else "w+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_new = path.stat().st_size == 0
            if is_new:
                self._file.truncate(nbytes)  # sparse: takes room on the disk as it fills
            memory = np.memmap(path, np.uint8, "r+")
        except BlockingIOError as error:
            raise UsageError(f"replay file {path} is in use by another run") from error
        except OSError as error:
            raise UsageError(f"cannot use replay file {path}: {error.strerror}") from error
        self._header = memory[: _HEADER * 8].view(np.int64)
        if is_new:
            self._header[:3] = _MAGIC, self.total, self.width
        if len(memory) != nbytes or tuple(self._header[:3]) != (_MAGIC, self.total, self.width):
            raise UsageError(
                f"{path} is not the replay of this run: it does not hold {self.total} rows of {self.width} numbers"
            )
        self._memory = memory
        return torch.from_numpy(memory[_PAGE:].view(np.float32).reshape(self.total, self.width))

    def __len__(self) -> int:
        """Rows that can be sampled."""
        return min(self.written, self.capacity)

    def add(self, rows: Tensor) -> None:
        """Append rows [k, width], k <= capacity, over the oldest ones."""
        start = self.written % self.total
        first = min(len(rows), self.total - start)
        self.rows[start : start + first] = rows[:first]
        self.rows[: len(rows) - first] = rows[first:]
        self.written += len(rows)
        self._header[3] = self.written

    def sample(self, count: int, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """Copy ``count`` rows, drawn uniformly with replacement, to ``out`` [count, width]."""
        index = torch.randint(self.written - len(self), self.written, (count,), generator=generator) % self.total
        return torch.index_select(self.rows, 0, index, out=out) if out is not None else self.rows[index]

    def tensors(self) -> dict[str, Tensor]:
        """What an exact resume needs beside :attr:`written`: the rows, unless a file keeps them."""
        if self.path is None:
            return {"replay/rows": self.rows[: len(self)]}
        self._memory.flush()
        return {}

    def restore(self, tensors: Mapping[str, Tensor], written: int) -> None:
        """Continue where ``tensors`` and ``written`` were taken.

        Raises:
            UsageError: rows of another shape, or a file from which rows are missing.
        """
        if self.path is None:
            rows = tensors.get("replay/rows")
            expected = (min(written, self.capacity), self.width)
            if rows is None or tuple(rows.shape) != expected:
                found = "missing" if rows is None else f"of shape {tuple(rows.shape)}"
                raise UsageError(f"replay/rows is {found} in the checkpoint; this run needs {expected}")
            self.rows[: len(rows)] = rows
        else:
            since = int(self._header[3]) - written
            if since < 0:
                raise UsageError(f"replay file {self.path} lacks the last {-since} rows of the checkpoint")
            if min(written, self.capacity) + since > self.total:
                raise UsageError(f"replay file {self.path} has overwritten rows that the checkpoint counts on")
        self.written = written

    def close(self) -> None:
        """Let another process use the file."""
        if self.path is not None:
            self._file.close()
