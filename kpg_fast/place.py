"""Where a run computes: on the CPU, or on a card that works by itself while the host only queues what comes next."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kpg_fast.config import Config
from kpg_fast.errors import UsageError


@dataclass(frozen=True)
class Place:
    """A device and what holds there.

    ``queued``: nothing in an iteration waits for the device or has a shape that depends on data, as a card that runs
    behind its host needs. ``graphs``: work that repeats is captured once and replayed. ``hosted``: environments step on
    the host, whose rollouts wait for the device's actions.
    """

    device: torch.device
    queued: bool = False
    graphs: bool = False
    hosted: bool = False


CPU = Place(torch.device("cpu"))


def place_of(config: Config) -> Place:
    """Where a configuration is trained; ``UsageError`` if it asks for a card and there is none."""
    if config.device == "cpu":
        return CPU
    if not torch.cuda.is_available():
        why = (
            f"torch {torch.__version__} is built without CUDA: install the build for this machine's CUDA (pytorch.org)"
            if torch.version.cuda is None
            else f"torch {torch.__version__} for CUDA {torch.version.cuda} finds no card; see what nvidia-smi says"
        )
        raise UsageError(f"device = 'cuda': {why}")
    card = torch.device("cuda", torch.cuda.current_device())
    on_card = config.algorithm == "k-mappo" and config.env.startswith("smax/")
    return Place(card, queued=True, graphs=config.graphs, hosted=not on_card)


def on_this_machine(config: Config) -> Config:
    """The configuration of a run that is to be loaded: where there is no card, of the CPU."""
    return config if torch.cuda.is_available() else on_cpu(config)


def on_cpu(config: Config) -> Config:
    """The configuration on the CPU, in a precision that it has."""
    if config.device == "cpu":
        return config
    return replace(config, device="cpu", precision="fp32" if config.precision == "tf32" else config.precision)


class Sent:
    """Numbers that the host sets and the device reads: one tensor on each, or the same one where the host computes."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self.device = torch.zeros(shape, dtype=dtype, device=device)
        self.host = self.device if device.type == "cpu" else pinned(shape, dtype)

    def send(self) -> None:
        """Queue the copy of what the host has set; it must not be set again before the device is known to be past."""
        if self.host is not self.device:
            self.device.copy_(self.host, non_blocking=True)


class Fetched:
    """Copies of a device's tensors for the host, made in turn with its other work."""

    def __init__(self) -> None:
        self._event: torch.cuda.Event | None = None

    def fetch(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        """Queue copies, each from the first of a pair to the second; of the same tensor there is none."""
        for source, target in pairs:
            if source is not target:
                target.copy_(source, non_blocking=True)
        if any(source.device.type == "cuda" for source, _ in pairs):
            self.mark()

    def mark(self) -> None:
        """All that is queued until now belongs to the copies to wait for."""
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def wait(self) -> None:
        """Return when the last copies have been made."""
        if self._event is not None:
            self._event.synchronize()


class Staged:
    """Rows of the host's arrays on their way to a device: two buffers by turns, one is copied while one is written."""

    def __init__(self, device: torch.device) -> None:
        self.device, self._turn = device, 0
        self._buffers: list[dict[str, Tensor]] = [{}, {}]
        self._copied = [Fetched(), Fetched()]

    def send(self, arrays: Mapping[str, NDArray[Any]], rows: NDArray[np.intp]) -> dict[str, Tensor]:
        """Queue the copy of ``rows`` of every array; the arrays may be changed at once."""
        chosen = {name: torch.from_numpy(array)[rows] for name, array in arrays.items()}
        self._turn = 1 - self._turn
        memory, copied = self._buffers[self._turn], self._copied[self._turn]
        copied.wait()
        sent = {}
        for name, part in chosen.items():
            if name not in memory or len(memory[name]) < len(part):
                memory[name] = pinned(part.shape, part.dtype)
            staged = memory[name][: len(part)].copy_(part)
            sent[name] = staged.to(self.device, non_blocking=True, copy=True)
        if self.device.type == "cuda":
            copied.mark()
        return sent


def pinned(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros on the host, where a card can read and write them by itself."""
    return torch.zeros(shape, dtype=dtype, pin_memory=torch.cuda.is_available())
