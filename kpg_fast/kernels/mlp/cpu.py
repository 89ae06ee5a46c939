"""The perceptron on the CPU, in csrc/mlp_kernels.hpp."""

from torch import Tensor

from kpg_fast import _C
from kpg_fast.kernels.layout import Array, Parameters, rounds


def forward(p: Parameters, x: Tensor, h1: Tensor, h2: Tensor, y: Tensor, precision: str) -> None:
    """See :func:`kpg_fast.kernels.mlp.forward`."""
    _C.mlp_forward(x.numpy(), _six(p), rounds(precision), h1.numpy(), h2.numpy(), y.numpy())


def deltas(
    p: Parameters, x: Tensor, h1: Tensor, h2: Tensor, dy: Tensor, d1: Tensor, d2: Tensor, precision: str
) -> None:
    """See :func:`kpg_fast.kernels.mlp.deltas`."""
    _C.mlp_deltas(x.numpy(), _six(p), rounds(precision), h1.numpy(), h2.numpy(), dy.numpy(), d1.numpy(), d2.numpy())


def gradient(
    into: Parameters, x: Tensor, h1: Tensor, h2: Tensor, d1: Tensor, d2: Tensor, dy: Tensor, precision: str
) -> None:
    """See :func:`kpg_fast.kernels.mlp.gradient`."""
    _C.mlp_gradient(
        x.numpy(), h1.numpy(), h2.numpy(), d1.numpy(), d2.numpy(), dy.numpy(), rounds(precision), _six(into)
    )


def _six(p: Parameters) -> list[Array]:
    return [p[name].numpy() for name in ("in.w", "in.b", "mid.w", "mid.b", "out.w", "out.b")]
