"""The level step in plain torch: definition, oracle and baseline."""

from torch import Tensor

ALPHA = 0.99
"""Decay rate of RMSProp's average where none is given."""
BETAS = (0.9, 0.999)
"""Adam's decay rates where none are given."""


def level_step(
    theta: Tensor,
    grad: Tensor,
    state: list[Tensor],
    optimizer: str,
    lr: float,
    betas: tuple[float, float] = BETAS,
    alpha: float = ALPHA,
    eps: float = 1e-8,
    momentum: float = 0.0,
    max_grad_norm: float | None = None,
    step: int = 1,
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return ``(theta_k, new state, grad_norm)``; formulas and shapes as in the package's docstring."""
    grad_norm = grad.double().square().sum(1).sqrt().to(grad.dtype)
    if max_grad_norm is not None:
        grad = grad * (max_grad_norm / grad_norm.clamp(min=max_grad_norm))[:, None]
    if optimizer == "adam":
        beta1, beta2 = betas
        m = beta1 * state[0] + (1 - beta1) * grad
        v = beta2 * state[1] + (1 - beta2) * grad.square()
        m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
        return theta - lr * m_hat / (v_hat.sqrt() + eps), [m, v], grad_norm
    direction, state_out = grad, []
    if optimizer == "rmsprop":
        v = alpha * state[0] + (1 - alpha) * grad.square()
        direction, state_out = grad / (v.sqrt() + eps), [v]
    if momentum:
        direction = momentum * state[-1] + direction
        state_out = [*state_out, direction]
    return theta - lr * direction, state_out, grad_norm
