"""GRU over time with resets, input product included.

The cell is flax's and JaxMARL's ``GRUCell`` (one bias for the inputs of the three gates, and one inside the reset
product), gates in the order r, z, n:

    h     = 0 where reset[t] else h[t-1]                              h[-1] = h0
    r     = sigmoid(x[t] W_xr + b_xr + h W_hr)
    z     = sigmoid(x[t] W_xz + b_xz + h W_hz)
    n     = tanh   (x[t] W_xn + b_xn + r * (h W_hn + b_n))
    h[t]  = (1 - z) * n + z * h

Shapes: x [G, T, R, I], h0 [G, R, H], reset [T, R] or [G, T, R], w_x [G, I, 3H], b_x [G, 3H], w_h [G, H, 3H],
b_n [G, H]; the result is every hidden state, [G, T, R, H]. G counts independent parameter sets, R independent rows.
"""

from torch import Tensor

from kpg_fast.kernels.gru import ref


def gru(
    x: Tensor,
    h0: Tensor,
    reset: Tensor,
    w_x: Tensor,
    b_x: Tensor,
    w_h: Tensor,
    b_n: Tensor,
    precision: str = "fp32",
) -> Tensor:
    """Return the hidden states [G, T, R, H] of every step; differentiable in x, h0 and the four parameters.

    Args:
        x: inputs [G, T, R, I].
        h0: hidden states before the first step [G, R, H].
        reset: bool [T, R] or [G, T, R]; true where the hidden state is set to zero before that step (a new episode).
        w_x: input weights [G, I, 3H], columns in the order r, z, n.
        b_x: input biases [G, 3H].
        w_h: recurrent weights [G, H, 3H].
        b_n: bias inside the reset product [G, H].
        precision: ``"fp32"``, or ``"bf16"`` as in :func:`kpg_fast.kernels.linear.linear`; gates stay float32.

    Float64 tensors always take the definition in ``ref.py`` (for tests).

    Raises:
        UsageError: unknown precision, or shapes that do not fit.
    """
    return ref.gru(x, h0, reset, w_x, b_x, w_h, b_n)
