"""Experience to sample from: a ring of rows, in memory or in a file, a row a transition or an episode.

A row holds all fields side by side, so that a sample is read in one place (one page where the ring is a file) and a
minibatch is one gather, without a Python object a sample.
"""

from collections.abc import Mapping
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
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
        path: keep the rows in this file instead of memory, so that they may exceed it. One process at a time writes to
            it; it is opened, or made, when it is first needed.
        spare: rows kept beyond ``capacity`` in a file: as many rows as these can be added after a checkpoint before one
            that it counts on is overwritten.

        device: where the rows lie; on a card all memory is taken when it is first needed.

    Raises:
        UsageError: when it is first needed, a file that is of other sizes or cannot be written, or too little memory
            on the card.
    """

    def __init__(
        self,
        capacity: int,
        width: int,
        path: Path | None = None,
        spare: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self.capacity, self.width, self.path, self.device = capacity, width, path, device
        self.total = capacity + (spare if path else 0)
        self.written = 0
        """Rows added since the ring was new."""
        self._lacks = ""
        """What keeps a restored ring from being used."""

    def __len__(self) -> int:
        """Rows that can be sampled."""
        return min(self.written, self.capacity)

    @cached_property
    def rows(self) -> Tensor:
        """All rows [total, width]."""
        if self.device is not None and self.device.type != "cpu":
            return self._on_card(self.device)
        if self.path is None:
            # np.empty: the system hands out a page when it is first written, so an unused ring costs nothing
            return torch.from_numpy(np.empty((self.total, self.width), np.float32))
        return torch.from_numpy(self._memory[_PAGE:].view(np.float32).reshape(self.total, self.width))

    def _on_card(self, device: torch.device) -> Tensor:
        try:
            return torch.empty(self.total, self.width, device=device)
        except torch.OutOfMemoryError as error:
            size = self.total * self.width * 4 / 2**30
            raise UsageError(
                f"the replay of buffer_size = {self.total} rows takes {size:.1f} GiB, which {device} does not have"
            ) from error

    @cached_property
    def _memory(self) -> NDArray[np.uint8]:
        assert self.path is not None
        nbytes, sizes = _PAGE + self.total * self.width * 4, (_MAGIC, self.total, self.width)
        try:
            is_new = not self.path.exists()
            if is_new:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("wb") as file:
                    file.truncate(nbytes)  # sparse: takes room on the disk as it fills
            memory = np.memmap(self.path, np.uint8, "r+")
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot use replay file {self.path}: {error}") from error
        if is_new:
            memory[: _HEADER * 8].view(np.int64)[:3] = sizes
        if len(memory) != nbytes or tuple(memory[: _HEADER * 8].view(np.int64)[:3]) != sizes:
            raise UsageError(
                f"{self.path} is not the replay of this run: it does not hold {self.total} rows of {self.width} numbers"
            )
        return memory

    @property
    def _header(self) -> NDArray[np.int64]:
        return self._memory[: _HEADER * 8].view(np.int64)

    def add(self, rows: Tensor) -> None:
        """Append rows [k, width], k <= capacity, over the oldest ones."""
        if self._lacks:
            raise UsageError(self._lacks)
        start = self.written % self.total
        first = min(len(rows), self.total - start)
        self.rows[start : start + first] = rows[:first]
        self.rows[: len(rows) - first] = rows[first:]
        self.written += len(rows)
        if self.path is not None:
            self._header[3] = self.written

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """The places [count] of rows, drawn uniformly with replacement."""
        return torch.randint(self.written - len(self), self.written, (count,), generator=generator) % self.total

    def take(self, index: Tensor, out: Tensor | None = None) -> Tensor:
        """Copy the rows at ``index`` [count], on the rows' device, to ``out`` [count, width]."""
        return torch.index_select(self.rows, 0, index, out=out) if out is not None else self.rows[index]

    def tensors(self) -> dict[str, Tensor]:
        """What an exact resume needs beside :attr:`written`: the rows, unless a file keeps them."""
        if self.path is None:
            return {"replay/rows": self.rows[: len(self)]}
        if self.written:
            self._memory.flush()  # type: ignore[attr-defined]
        return {}

    def restore(self, tensors: Mapping[str, Tensor], written: int) -> None:
        """Continue where ``tensors`` and ``written`` were taken.

        A file that lacks rows is an error only when something is to be added: policies can be evaluated without it.

        Raises:
            UsageError: rows of another shape.
        """
        if self.path is None:
            rows = tensors.get("replay/rows")
            expected = (min(written, self.capacity), self.width)
            if rows is None or tuple(rows.shape) != expected:
                found = "missing" if rows is None else f"of shape {tuple(rows.shape)}"
                raise UsageError(f"replay/rows is {found} in the checkpoint; this run needs {expected}")
            self.rows[: len(rows)] = rows
        elif written and not self.path.exists():
            self._lacks = (
                f"replay file {self.path} is missing (it is named after the run's directory, and is not found again "
                "if that was moved)"
            )
        elif written:
            since = int(self._header[3]) - written
            if since < 0:
                self._lacks = f"replay file {self.path} lacks the last {-since} rows of the checkpoint"
            elif min(written, self.capacity) + since > self.total:
                self._lacks = f"replay file {self.path} has overwritten rows that the checkpoint counts on"
        self.written = written
