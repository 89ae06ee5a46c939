"""What every kernel is held to: float64 of its definition, judged by torch's own error in float32."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from kpg_fast import _C


def as_exact_as_torch(ours: Tensor, single: Tensor, exact: Tensor, name: str = "", times: float = 2) -> None:
    """The largest error of ``ours`` is at most twice that of ``single`` (torch in float32), plus one rounding."""
    assert ours.shape == exact.shape, name
    assert not ours.isnan().any(), f"{name}: not everything was written"
    rounding = times / 2 * torch.finfo(torch.float32).eps * exact.abs().max()
    error, allowed = (ours - exact).abs().max(), times * (single - exact).abs().max() + rounding
    assert error <= allowed, f"{name}: error {error:.3g}, allowed {allowed:.3g}"


def doubled(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Float tensors in float64, others as they are."""
    return tuple(t.double() if t.is_floating_point() else t for t in tensors)


def value_and_gradients(f: Callable[..., Tensor], inputs: tuple[Tensor, ...], seed: Tensor) -> list[Tensor]:
    """f(*inputs) and the gradients of its product with ``seed`` in all float inputs."""
    inputs = tuple(t.clone().requires_grad_() if t.is_floating_point() else t for t in inputs)
    value = f(*inputs)
    gradients = torch.autograd.grad(value, [t for t in inputs if t.requires_grad], seed.to(value.dtype))
    return [value.detach(), *gradients]


@contextmanager
def kernels(name: str) -> Iterator[None]:
    """Run with the kernels of one instruction set."""
    before = _C.chosen_kernels()
    _C.choose_kernels(name)
    try:
        yield
    finally:
        _C.choose_kernels(before)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run with this many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
