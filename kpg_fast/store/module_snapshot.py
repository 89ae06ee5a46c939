"""Snapshot and exact restore of torch modules and their optimisers, in place."""

import copy
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kpg_fast import _C

_ALIGNMENT = 64  # bytes


class ModuleSnapshot:
    """The state of ``modules`` and ``optimizers`` when this was made, to which :meth:`restore` brings them back.

    That is: the parameters that the optimisers hold, the modules' buffers (persistent or not), every entry of the
    optimisers' state (tensors such as moments and step counts, plain values; entries that were created since vanish
    again) and the settings of their parameter groups. Tensors keep their identity and their place in memory.

    Contiguous CPU tensors are copied to a slab and back in one parallel pass; others tensor by tensor on their device.
    """

    def __init__(self, modules: Sequence[nn.Module], optimizers: Sequence[Optimizer]) -> None:
        tensors: list[Tensor] = []
        self._states = [_freeze(dict(optimizer.state), tensors) for optimizer in optimizers]
        self._groups = [[_freeze(group, tensors) for group in optimizer.param_groups] for optimizer in optimizers]
        self._buffers = [(part, _freeze(part._buffers, tensors)) for module in modules for part in module.modules()]
        self._optimizers = optimizers
        self._contents = _Contents(tensors)

    def covers(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` shares memory with what is restored."""
        return self._contents.covers(tensor)

    def restore(self) -> None:
        """Bring everything back, bit for bit."""
        self._contents.restore()
        for optimizer, state, groups in zip(self._optimizers, self._states, self._groups, strict=True):
            _refill(optimizer.state, state)
            for group, saved in zip(optimizer.param_groups, groups, strict=True):
                _refill(group, saved)
        for part, buffers in self._buffers:
            _refill(part._buffers, buffers)


def _freeze(value: Any, tensors: list[Tensor]) -> Any:
    """Copy a nest of containers; tensors are collected in ``tensors`` and stand for themselves."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value
    if isinstance(value, dict):
        # keys may be parameters: an optimiser's state is one entry a parameter
        return {key: _freeze(entry, tensors) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_freeze(entry, tensors) for entry in value)
    return copy.deepcopy(value)


def _refill(live: Any, saved: dict[Any, Any]) -> None:
    live.clear()
    live.update(_freeze(saved, []))  # a copy of the containers: what is saved must serve every level


class _Contents:
    """The numbers in tensors, and their way back."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = list({id(tensor): tensor for tensor in tensors}.values())
        self._memory = [tensor.detach() for tensor in self._tensors]
        plain = [memory for memory in self._memory if _is_plain(memory)]
        self._others = [memory for memory in self._memory if not _is_plain(memory)]
        self._bytes = [memory.reshape(-1).view(torch.uint8).numpy() for memory in plain]
        ends = list(accumulate((-(-live.size // _ALIGNMENT) * _ALIGNMENT for live in self._bytes), initial=0))
        slab = _C.Slab(max(ends[-1], 1)).array()
        self._saved = [slab[at:][: live.size] for at, live in zip(ends, self._bytes, strict=False)]
        _C.copy_many(self._bytes, self._saved)
        self._others_saved = [memory.clone() for memory in self._others]

    def covers(self, tensor: Tensor) -> bool:
        storage = tensor.untyped_storage().data_ptr()
        return any(storage == own.untyped_storage().data_ptr() for own in self._tensors)

    def restore(self) -> None:
        _C.copy_many(self._saved, self._bytes)
        if self._others:
            torch._foreach_copy_(self._others, self._others_saved)
        for tensor, memory in zip(self._tensors, self._memory, strict=True):
            if tensor.data_ptr() != memory.data_ptr():  # an optimiser that writes `p.data = ...`
                tensor.data = memory


def _is_plain(tensor: Tensor) -> bool:
    """Whether the tensor's memory is its contents: what else there is (strides, devices, subclasses) torch copies."""
    return (
        type(tensor) is Tensor
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and tensor.is_contiguous()
        and not (tensor.is_conj() or tensor.is_neg())
    )
