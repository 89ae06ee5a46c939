"""Where parameters live: one aligned slab of named slots, layers as views.

G counts independent parameter sets (seeds x agents, or seeds x 1 where agents share), P the numbers of one set.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from kpg_fast import _C
from kpg_fast.errors import UsageError, unknown_name

_ALIGNMENT = 16  # numbers; 64 bytes of float32, so that every layer starts on a cache line
_PAGE = 4096  # bytes


class Layout:
    """Where each named array of one parameter set lies in its P numbers.

    Args:
        shapes: name -> shape in the order of memory, e.g. ``{"fc1.weight": (127, 128), "fc1.bias": (128,)}``; weights
            are (in, out).

    Attributes:
        shapes: as given.
        offsets: name -> first number, a multiple of 16.
        size: P, the gaps between arrays included. A gap stays 0 for as long as its gradient does.
        num_parameters: numbers without the gaps.

    Raises:
        UsageError: no array, or one without entries.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        if not shapes:
            raise UsageError("a layout needs at least one array")
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.offsets: dict[str, int] = {}
        self.size = 0
        for name, shape in self.shapes.items():
            if any(length < 1 for length in shape):
                raise UsageError(f"{name}: shape {shape} has an axis without entries")
            self.offsets[name] = self.size
            self.size += -(-prod(shape) // _ALIGNMENT) * _ALIGNMENT
        self.num_parameters = sum(map(prod, self.shapes.values()))

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Split ``flat`` [G, P] into ``name -> [G, *shape]``, views of the same memory."""
        groups = flat.shape[0]
        return {
            name: flat.narrow(1, self.offsets[name], prod(shape)).view(groups, *shape)
            for name, shape in self.shapes.items()
        }


class ParameterStore:
    """Named slots of [G, P] numbers in one slab that never moves: theta, levels, moments, targets, gradients.

    Args:
        layout: what one parameter set consists of.
        groups: G.
        slots: names of the slots; all start at 0.
        dtype: float32, or float64 for tests.
        device: where the slab lies.

    Raises:
        UsageError: no slot, a slot named twice, another dtype, ``groups < 1``.
    """

    def __init__(
        self,
        layout: Layout,
        groups: int,
        slots: Iterable[str],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        names = list(slots)
        if groups < 1:
            raise UsageError(f"a store needs at least one parameter set; got groups={groups}")
        if dtype not in (torch.float32, torch.float64):
            raise UsageError(f"a store holds float32 or float64; got {dtype}")
        if not names or len(set(names)) != len(names):
            raise UsageError(f"slots must be one or more different names; got {', '.join(names) or 'none'}")
        self.layout, self.groups, self.dtype = layout, groups, dtype
        self.on_host = device is None or device.type == "cpu"
        self.slot_nbytes = groups * layout.size * dtype.itemsize
        stride = -(-self.slot_nbytes // _PAGE) * _PAGE
        # A tensor each, not views of one tensor: autograd then sees that writing a level leaves theta as it was.
        if self.on_host:
            slab = _C.Slab(stride * len(names)).array()
            parts = [torch.from_numpy(slab[index * stride :][: self.slot_nbytes]) for index in range(len(names))]
        else:
            parts = [torch.zeros(self.slot_nbytes, dtype=torch.uint8, device=device) for _ in names]
        self._slots = {
            name: part.view(dtype).view(groups, layout.size) for name, part in zip(names, parts, strict=True)
        }
        self._views = {name: layout.views(slot) for name, slot in self._slots.items()}

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the slots, in the order of memory."""
        return tuple(self._slots)

    def slot(self, name: str) -> Tensor:
        """Return a slot [G, P]: the slab's own memory, the same tensor at every call."""
        if name not in self._slots:
            raise unknown_name("slot", name, self._slots)
        return self._slots[name]

    def views(self, name: str) -> dict[str, Tensor]:
        """Return a slot's arrays, ``name -> [G, *shape]``: the slab's own memory, the same tensors at every call."""
        self.slot(name)
        return self._views[name]

    def copy(self, src: str, dst: str) -> None:
        """Copy slot ``src`` to slot ``dst`` with all threads, or queue that on a card."""
        if not self.on_host:
            self.slot(dst).copy_(self.slot(src))
            return
        _C.copy(self.slot(src).numpy(), self.slot(dst).numpy())

    def checksum(self, name: str) -> int:
        """Return a 64-bit checksum of a slot's bytes and their order, the same for any number of threads."""
        checksum: int = _C.checksum(self.slot(name).cpu().numpy())
        return checksum

    def polyak(self, src: str, dst: str, tau: float) -> None:
        """Move a target: dst = (1 - tau) dst + tau src, with tau in [0, 1]; on a card that is queued."""
        if not self.on_host:
            self.slot(dst).mul_(1 - tau).add_(self.slot(src), alpha=tau)
            return
        _C.polyak(self.slot(src).numpy(), self.slot(dst).numpy(), tau)
