"""How a network's results change between two sets of parameters, theta and theta_k, carried as differences.

A lookahead level wants log pi_{theta_k}(a) - log pi_theta(a), a small number. Two passes in bfloat16, subtracted, would
lose it in their rounding: theta_k - theta lies below bfloat16's last place. So the difference itself goes through the
layers, starting from what the pass at theta kept, and only its products are in bfloat16:

    linear   dy  = act(a + d) - act(a),      d  = x (W_k - W) + dx W_k + (b_k - b),   a = x W + b
    GRU      the same products for the gates' arguments; a gate changes by
             sigmoid: s (1 - s) E / (1 + s E), E = e^d - 1;      tanh: (1 - t^2) E / (2 + (1 + t) E), E = e^2d - 1
    policy   d log pi(a) = dl_a - log(1 + sum_j pi_j (e^dl_j - 1))

Every rounding is relative to the difference. Nothing here has a gradient: the levels differentiate the pass at theta.
"""

import torch
from torch import Tensor

from kpg_fast.errors import UsageError
from kpg_fast.kernels.layout import check_dtypes, check_precision, check_shape
from kpg_fast.kernels.lookahead import cpu
from kpg_fast.kernels.registration import define_op

Weights = tuple[Tensor, Tensor, Tensor, Tensor]


def _linear_shape(x: Tensor, dx: Tensor | None, w: Tensor, *_: object) -> Tensor:
    return x.new_empty(w.shape[0], x.shape[1], w.shape[2])


_linear = define_op("linear_difference", cpu.linear_difference, _linear_shape)


def _gru_shape(x: Tensor, dx: Tensor, h: Tensor, *_: object) -> Tensor:
    return h.new_empty(h.shape)


_gru = define_op("gru_difference", cpu.gru_difference, _gru_shape)


def _log_prob_shape(logits: Tensor, dlogits: Tensor, avail: Tensor | None, action: Tensor) -> Tensor:
    return logits.new_empty(action.shape)


_log_prob = define_op("log_prob_difference", cpu.log_prob_difference, _log_prob_shape)


def _float32(name: str, *tensors: Tensor | None) -> None:
    if check_dtypes(name, *tensors) != torch.float32:
        raise UsageError(f"{name} takes float32 tensors; in float64 subtract two passes")


def linear_difference(
    x: Tensor,
    dx: Tensor | None,
    w: Tensor,
    w_k: Tensor,
    b: Tensor | None = None,
    b_k: Tensor | None = None,
    sums: Tensor | None = None,
    precision: str = "bf16",
) -> Tensor:
    """Return y(theta_k) - y(theta) [G, M, out] of a linear layer.

    Args:
        x: input at theta [G, M, in].
        dx: change of the input [G, M, in]; None: the layer's input does not depend on the parameters.
        w: weights at theta [G, in, out].
        w_k: weights at theta_k [G, in, out].
        b: bias at theta [G, out] or None.
        b_k: bias at theta_k [G, out] or None.
        sums: for a layer with ReLU, x w + b at theta as :func:`kpg_fast.kernels.linear.linear_and_sums` returns it
            [G, M, out]; None: no activation.
        precision: of the products, ``"bf16"`` or ``"fp32"``.

    Raises:
        UsageError: unknown precision, or types or shapes that do not fit.
        ValueError: other shapes that do not fit.
    """
    check_precision(precision)
    _float32("linear_difference", x, dx, w, w_k, b, b_k, sums)
    check_shape("w_k", w_k, tuple(w.shape))
    dy: Tensor = _linear(x.detach(), dx, w.detach(), w_k, b, b_k, sums, precision)
    return dy


def gru_difference(
    x: Tensor,
    dx: Tensor,
    h: Tensor,
    gates: Tensor,
    h0: Tensor,
    reset: Tensor,
    weights: Weights,
    weights_k: Weights,
    precision: str = "bf16",
) -> Tensor:
    """Return h(theta_k) - h(theta) [G, T, R, H] of a GRU that starts from the same h0.

    Args:
        x: input at theta [G, T, R, I].
        dx: change of the input [G, T, R, I].
        h: hidden states at theta [G, T, R, H].
        gates: the gates at theta [G, T, R, 4H] as :func:`kpg_fast.kernels.gru.gru_and_gates` returns them.
        h0: hidden states before the first step [G, R, H].
        reset: bool [T, R] or [G, T, R].
        weights: (w_x, b_x, w_h, b_n) at theta.
        weights_k: the same at theta_k.
        precision: of the products, ``"bf16"`` or ``"fp32"``.

    Raises:
        UsageError: unknown precision, or types or shapes that do not fit.
        ValueError: other shapes that do not fit.
    """
    check_precision(precision)
    _float32("gru_difference", x, dx, h, gates, h0, *weights, *weights_k)
    check_shape("dx", dx, tuple(x.shape))
    check_shape("gates", gates, (*h.shape[:-1], 4 * h.shape[-1]))
    before, after = ([w.detach() for w in group] for group in (weights, weights_k))
    dh: Tensor = _gru(x.detach(), dx, h.detach(), gates, h0.detach(), reset, before, after, precision)
    return dh


def relu_difference(sums: Tensor, change: Tensor) -> Tensor:
    """Return relu(sums + change) - relu(sums), of their common shape, for a layer that is put together elsewhere."""
    after = sums + change
    crosses = (sums > 0) != (after > 0)
    # where nothing crosses zero the difference is the change itself: it must not be rounded to the sum's last place
    return torch.where(crosses, torch.relu(after) - torch.relu(sums), change * (sums > 0))


def log_prob_difference(logits: Tensor, dlogits: Tensor, avail: Tensor | None, action: Tensor) -> Tensor:
    """Return log pi_{theta_k}(a) - log pi_theta(a), of action's shape.

    Args:
        logits: at theta [..., A].
        dlogits: their change [..., A].
        avail: bool [..., A], or None where every action is available.
        action: int32 or int64 [...].

    Raises:
        UsageError: types or shapes that do not fit.
        ValueError: an action outside 0 .. A-1.
    """
    _float32("log_prob_difference", logits, dlogits)
    check_shape("dlogits", dlogits, tuple(logits.shape))
    change: Tensor = _log_prob(logits.detach(), dlogits, avail, action)
    return change
