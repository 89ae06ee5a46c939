"""Calls of every host function at the sizes of 2s3z with 4096 environments and 128 steps.

On tensors without memory, unless ``DEVICE`` is set to a card (bench/gpu.py).
"""

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from kpg_fast.kernels.agent_embedding import gpu as agent_embedding
from kpg_fast.kernels.gae import gpu as gae
from kpg_fast.kernels.gaussian_policy import gpu as gaussian_policy
from kpg_fast.kernels.gru import gpu as gru
from kpg_fast.kernels.k_level_surrogate import gpu as surrogate
from kpg_fast.kernels.level_step import gpu as level_step
from kpg_fast.kernels.linear import gpu as linear
from kpg_fast.kernels.lookahead import gpu as lookahead
from kpg_fast.kernels.mixer import gpu as mixer
from kpg_fast.kernels.policy import gpu as policy
from kpg_fast.kernels.value_loss import gpu as value_loss

T, E, N, A = 128, 4096, 5, 10
FLAG, INT = torch.bool, torch.int32


DEVICE = "meta"


@cache
def make(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same tensor for the same shape, so that cases share what memory they need."""
    return torch.ones(shape, dtype=dtype, device=DEVICE)


def advantages() -> None:
    flags = make(T, E, dtype=FLAG)
    gae.gae(make(T, E), make(T, E, N), make(E, N), flags, flags, make(T, E, N), flags, 0.99, 0.95)


def values() -> None:
    rows = make(T, E, N)
    value_loss.value_loss(rows, rows, rows, make(T, E, N, dtype=FLAG), None, make(1))


def step(optimizer: str, states: int) -> None:
    theta, slots = make(1, 150_000), [make(1, 150_000)] * states
    level_step.level_step(
        theta, theta, slots, theta, slots, make(1), optimizer, 1e-3, (0.9, 0.999), 0.99, 1e-5, 0.0, 0.5, 1
    )  # fmt: skip


def policies() -> None:
    logits, avail, action = make(T, E, N, A), make(T, E, N, A, dtype=FLAG), make(T, E, N, dtype=INT)
    policy.log_prob_entropy(logits, avail, action)
    policy.log_prob_entropy_backward(make(T, E, N), make(T, E, N), logits, avail, action)
    counters = make(E, N, dtype=torch.int64)
    policy.sample(logits[0], avail[0], counters, counters, counters, 0, False)
    gaussian_policy.standard_normal(counters, counters, counters, 0, 3)


def losses(actions: int) -> None:
    rows, flags = make(T, E, N), make(T, E, N, dtype=FLAG)
    avail = make(T, E, N, actions, dtype=FLAG)
    surrogate.k_level_surrogate(
        make(T, E, N, actions), avail, make(T, E, N, dtype=INT), rows, rows, flags, rows, 0.2, 0.01, "product", 0.2,
        make(2),
    )  # fmt: skip
    surrogate.others_log_ratio(rows, rows, flags)


def mixtures() -> None:
    q, w1, hidden, v = make(6, 100), make(100, 6, 64), make(100, 64), make(100)
    mixer.mix(q, w1, hidden, hidden, v, True)
    mixer.mix_backward(v, q, w1, hidden, hidden, True)
    mixer.mix_one_live(q, q, w1, hidden, hidden, v, True)


def embedding() -> None:
    y = agent_embedding.forward(make(1, T * E, 128), make(1, N, 128))
    agent_embedding.backward(y, y)


def layer(precision: str) -> None:
    x, w, b = make(1, T * E * N, 128), make(1, 128, 128), make(1, 128)
    y, _ = linear.forward(x, w, b, "relu", precision, False)
    linear.backward(y, y, x, w, "relu", precision, True, True)


def recurrence(precision: str, hidden: int, rows: int) -> None:
    x, h0, reset = make(1, T, rows, hidden), make(1, rows, hidden), make(T, rows, dtype=FLAG)
    weights = make(1, hidden, 3 * hidden), make(1, 3 * hidden), make(1, hidden, 3 * hidden), make(1, hidden)
    h, gates = gru.forward(x, h0, reset, *weights, precision, True)
    gru.backward(h, h, gates, x, h0, reset, *weights, precision, 0, True)


def changes(precision: str, hidden: int) -> None:
    rows = E * N
    logits, avail, action = make(T, E, N, A), make(T, E, N, A, dtype=FLAG), make(T, E, N, dtype=INT)
    lookahead.log_prob_difference(logits, logits, avail, action)
    x, w, b = make(1, T * rows, hidden), make(1, hidden, hidden), make(1, hidden)
    lookahead.linear_difference(x, x, w, w, b, b, x, precision)
    sequence, h0, reset = make(1, T, rows, hidden), make(1, rows, hidden), make(T, rows, dtype=FLAG)
    weights = [make(1, hidden, 3 * hidden), make(1, 3 * hidden), make(1, hidden, 3 * hidden), make(1, hidden)]
    gates = make(1, T, rows, 4 * hidden)
    lookahead.gru_difference(sequence, sequence, sequence, gates, h0, reset, weights, weights, precision)


MANY, FEW = E * N, 32 * N
CASES: dict[str, Callable[[], None]] = {
    "advantages": advantages,
    "value loss": values,
    "Adam": partial(step, "adam", 2),
    "RMSProp": partial(step, "rmsprop", 1),
    "10 actions": policies,
    "surrogate, 10 actions": partial(losses, 10),
    "surrogate, 35 actions": partial(losses, 35),
    "6 agents, 64 units": mixtures,
    "128 units": embedding,
    **{f"{p}, 128 x 128": partial(layer, p) for p in ("fp32", "tf32", "bf16")},
    **{f"lookahead, bf16, {hidden} units": partial(changes, "bf16", hidden) for hidden in (128, 256)},
    **{
        f"{precision}, {hidden} units, {'many' if rows == MANY else 'few'} rows": partial(
            recurrence, precision, hidden, rows
        )
        for precision, hidden, rows in (
            ("bf16", 64, MANY),
            ("bf16", 128, MANY),
            ("bf16", 128, FEW),
            ("bf16", 256, MANY),
            ("tf32", 64, MANY),
            ("tf32", 128, MANY),
            ("fp32", 128, MANY),
        )
    },
}
