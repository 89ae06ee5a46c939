"""One optimiser step from theta, written elsewhere: theta^(k) = theta + eta grad, for G parameter sets at once.

    g    = grad * max_grad_norm / max(|grad|, max_grad_norm)        |grad| of each of the G sets (one actor each)
    adam     m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
             theta_out = theta - lr * m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps)
    rmsprop  v = alpha v + (1 - alpha) g^2;  d = g / (sqrt(v) + eps);  d = b = momentum b + d
             theta_out = theta - lr * d
    sgd      d = b = momentum b + g;  theta_out = theta - lr * d

Adam is torch's and optax's default, RMSProp is torch's (optax adds eps inside the root), the clip is optax's
``clip_by_global_norm`` (torch adds 1e-6 to the norm). The gradient descends: it is that of a loss, -J.

theta, grad, theta_out and every state slot are [G, P], contiguous, of one type, float32 or float64; grad_norm is [G].
An output may be the very memory of its input, then the step is in place; the numbers are the same bit for bit. They
depend neither on the number of threads nor on the instruction set. There is no gradient through a step.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kpg_fast.errors import unknown_name
from kpg_fast.kernels.level_step import cpu
from kpg_fast.kernels.level_step.ref import ALPHA, BETAS

_STATE = {"adam": ("exp_avg", "exp_avg_sq"), "rmsprop": ("square_avg",), "sgd": ()}

OPTIMIZERS = tuple(_STATE)


def state_names(optimizer: str, momentum: float = 0.0) -> tuple[str, ...]:
    """Name the state slots of an optimiser in the order the level step takes them, as torch.optim names them.

    Raises:
        UsageError: unknown optimiser.
    """
    if optimizer not in _STATE:
        raise unknown_name("optimizer", optimizer, OPTIMIZERS)
    has_buffer = momentum != 0.0 and optimizer != "adam"
    return (*_STATE[optimizer], *(("momentum_buffer",) if has_buffer else ()))


def level_step(
    theta: Tensor,
    grad: Tensor,
    state_in: Sequence[Tensor],
    theta_out: Tensor,
    state_out: Sequence[Tensor] | None = None,
    *,
    optimizer: str,
    lr: float,
    step: int = 1,
    betas: tuple[float, float] = BETAS,
    alpha: float = ALPHA,
    eps: float = 1e-8,
    momentum: float = 0.0,
    max_grad_norm: float | None = None,
    grad_norm: Tensor | None = None,
    rates: Tensor | None = None,
) -> Tensor:
    """Write one optimiser step from ``theta`` to ``theta_out``; return the gradient's norm [G] before clipping.

    Args:
        theta: parameters the step starts from, [G, P].
        grad: gradient of the loss, [G, P].
        state_in: the state before the step, slots as :func:`state_names` orders them, [G, P] each.
        theta_out: where theta^(k) goes, [G, P].
        state_out: where the state after the step goes, or None where it is not wanted (a lookahead level).
        optimizer: ``adam``, ``rmsprop`` or ``sgd``.
        lr: learning rate.
        step: which step of the optimiser this is, from 1 (Adam's bias correction).
        betas: Adam's decay rates.
        alpha: RMSProp's decay rate.
        eps: added to the root.
        momentum: of RMSProp and SGD.
        max_grad_norm: each of the G gradients is scaled down to this norm; None does not clip.
        grad_norm: [G], where the norm goes; allocated if None.
        rates: on a GPU, float32 [2] in its memory: what :func:`kpg_fast.kernels.level_step.gpu.step_sizes` makes of
            ``lr``, ``betas`` and ``step``, which are not read then; so a captured step takes new ones at each replay.

    Raises:
        UsageError: unknown optimiser.
        ValueError: shapes, types or memory that do not fit.
    """
    state_names(optimizer)
    if grad_norm is None:
        grad_norm = theta.new_empty(theta.shape[0])
    torch.ops.kpg_fast.level_step(
        theta, grad, list(state_in), theta_out, list(state_out or ()), grad_norm,
        optimizer, lr, list(betas), alpha, eps, momentum, max_grad_norm, step, rates,
    )  # fmt: skip
    return grad_norm


# Declared by its schema and not by custom_op, whose wrapper takes 80 us where outputs are arguments: more
# than the step of an actor of 150,000 parameters.
torch.library.define(
    "kpg_fast::level_step",
    "(Tensor theta, Tensor grad, Tensor[] state_in, Tensor(a!) theta_out, Tensor(b!)[] state_out, Tensor(c!) grad_norm,"
    " str optimizer, float lr, float[] betas, float alpha, float eps, float momentum, float? max_grad_norm,"
    " SymInt step, Tensor? rates) -> ()",
)


@torch.library.impl("kpg_fast::level_step", "cpu")
def _(*args: Any) -> None:
    cpu.level_step(*args)


@torch.library.impl("kpg_fast::level_step", "cuda")
def _(*args: Any) -> None:
    from kpg_fast.kernels.level_step import gpu  # here, because it imports Triton

    gpu.level_step(*args)


@torch.library.register_fake("kpg_fast::level_step")
def _(*args: object) -> None:
    """Nothing is returned: the outputs are arguments."""
