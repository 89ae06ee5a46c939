"""The perceptron on the CPU, in csrc/mlp_kernels.hpp."""

from collections.abc import Mapping

from torch import Tensor

from kpg_fast import _C
from kpg_fast.kernels.layout import Array, view

Parameters = Mapping[str, Tensor]


def forward(p: Parameters, x: Tensor, h1: Tensor, h2: Tensor, y: Tensor, precision: str) -> None:
    """See :func:`kpg_fast.kernels.mlp.forward`."""
    _C.mlp_forward(view(x), _six(p), precision == "bf16", view(h1), view(h2), view(y))


def deltas(
    p: Parameters, x: Tensor, h1: Tensor, h2: Tensor, dy: Tensor, d1: Tensor, d2: Tensor, precision: str
) -> None:
    """See :func:`kpg_fast.kernels.mlp.deltas`."""
    _C.mlp_deltas(view(x), _six(p), precision == "bf16", view(h1), view(h2), view(dy), view(d1), view(d2))


def gradient(
    into: Parameters, x: Tensor, h1: Tensor, h2: Tensor, d1: Tensor, d2: Tensor, dy: Tensor, precision: str
) -> None:
    """See :func:`kpg_fast.kernels.mlp.gradient`."""
    _C.mlp_gradient(view(x), view(h1), view(h2), view(d1), view(d2), view(dy), precision == "bf16", _six(into))


def _six(p: Parameters) -> list[Array]:
    return [view(p[name]) for name in ("in.w", "in.b", "mid.w", "mid.b", "out.w", "out.b")]
