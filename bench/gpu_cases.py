"""Calls of every host function at the sizes of 2s3z with 4096 environments and 128 steps, and at sizes of one.

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


def advantages(t: int = T, e: int = E, n: int = N) -> None:
    flags = make(t, e, dtype=FLAG)
    gae.gae(make(t, e), make(t, e, n), make(e, n), flags, flags, make(t, e, n), flags, 0.99, 0.95)


def values(*shape: int) -> None:
    rows = make(*shape)
    value_loss.value_loss(rows, rows, rows, make(*shape, dtype=FLAG), None, make(1))


def step(optimizer: str, states: int, size: int = 150_000) -> None:
    theta, slots = make(1, size), [make(1, size)] * states
    level_step.level_step(
        theta, theta, slots, theta, slots, make(1), optimizer, 1e-3, (0.9, 0.999), 0.99, 1e-5, 0.0, 0.5, 1
    )  # fmt: skip


def policies(*shape: int, actions: int = A) -> None:
    logits, avail, action = make(*shape, actions), make(*shape, actions, dtype=FLAG), make(*shape, dtype=INT)
    policy.log_prob_entropy(logits, avail, action)
    policy.log_prob_entropy_backward(make(*shape), make(*shape), logits, avail, action)
    counters = make(*shape[1:], dtype=torch.int64)
    policy.sample(logits[0], avail[0], counters, counters, counters, 0, False)
    gaussian_policy.standard_normal(counters, counters, counters, 0, 3)


def losses(*shape: int, actions: int) -> None:
    rows, flags = make(*shape), make(*shape, dtype=FLAG)
    avail = make(*shape, actions, dtype=FLAG)
    surrogate.k_level_surrogate(
        make(*shape, actions), avail, make(*shape, dtype=INT), rows, rows, flags, rows, 0.2, 0.01, "product", 0.2,
        make(2),
    )  # fmt: skip
    surrogate.others_log_ratio(rows, rows, flags)


def mixtures(agents: int, rows: int, units: int) -> None:
    q, w1, hidden, v = make(agents, rows), make(rows, agents, units), make(rows, units), make(rows)
    mixer.mix(q, w1, hidden, hidden, v, True)
    mixer.mix_backward(v, q, w1, hidden, hidden, True)
    mixer.mix_one_live(q, q, w1, hidden, hidden, v, True)


def embedding(rows: int = T * E, agents: int = N, units: int = 128) -> None:
    y = agent_embedding.forward(make(1, rows, units), make(1, agents, units))
    agent_embedding.backward(y, y)


def layer(precision: str, rows: int = T * E * N, units: int = 128) -> None:
    x, w, b = make(1, rows, units), make(1, units, units), make(1, units)
    y, _ = linear.forward(x, w, b, "relu", precision, False)
    linear.backward(y, y, x, w, "relu", precision, True, True)


def recurrence(precision: str, hidden: int, rows: int, steps: int = T) -> None:
    x, h0, reset = make(1, steps, rows, hidden), make(1, rows, hidden), make(steps, rows, dtype=FLAG)
    weights = make(1, hidden, 3 * hidden), make(1, 3 * hidden), make(1, hidden, 3 * hidden), make(1, hidden)
    h, gates = gru.forward(x, h0, reset, *weights, precision, True)
    gru.backward(h, h, gates, x, h0, reset, *weights, precision, 0, True)


def changes(precision: str, hidden: int, t: int = T, e: int = E, n: int = N) -> None:
    rows = e * n
    logits, avail, action = make(t, e, n, A), make(t, e, n, A, dtype=FLAG), make(t, e, n, dtype=INT)
    lookahead.log_prob_difference(logits, logits, avail, action)
    x, w, b = make(1, t * rows, hidden), make(1, hidden, hidden), make(1, hidden)
    lookahead.linear_difference(x, x, w, w, b, b, x, precision)
    sequence, h0, reset = make(1, t, rows, hidden), make(1, rows, hidden), make(t, rows, dtype=FLAG)
    weights = [make(1, hidden, 3 * hidden), make(1, 3 * hidden), make(1, hidden, 3 * hidden), make(1, hidden)]
    gates = make(1, t, rows, 4 * hidden)
    lookahead.gru_difference(sequence, sequence, sequence, gates, h0, reset, weights, weights, precision)


MANY, FEW = E * N, 32 * N
CASES: dict[str, Callable[[], None]] = {
    "advantages": advantages,
    "value loss": partial(values, T, E, N),
    "Adam": partial(step, "adam", 2),
    "RMSProp": partial(step, "rmsprop", 1),
    "10 actions": partial(policies, T, E, N),
    "surrogate, 10 actions": partial(losses, T, E, N, actions=10),
    "surrogate, 35 actions": partial(losses, T, E, N, actions=35),
    "6 agents, 64 units": partial(mixtures, 6, 100, 64),
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

# A launch makes a constant of a size of one, and a constant is compiled by other rules.
OF_ONE: dict[str, Callable[[], None]] = {
    "advantages": partial(advantages, 1, 1, 1),
    "value loss": partial(values, 1, 1, 1),
    "step": partial(step, "adam", 2, 1),
    "policies": partial(policies, 1, 1, 1, actions=1),
    "surrogate": partial(losses, 1, 1, 1, actions=1),
    "mixer": partial(mixtures, 1, 1, 1),
    "embedding": partial(embedding, 1, 1, 1),
    "layer": partial(layer, "bf16", 1, 1),
    **{f"{precision} recurrence": partial(recurrence, precision, 16, 1, 1) for precision in ("bf16", "fp32")},
    "lookahead": partial(changes, "bf16", 16, 1, 1, 1),
    "one row of many steps": partial(recurrence, "bf16", 128, 1),
}
