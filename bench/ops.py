"""Every compiled op of K-MAPPO's update against its definition in torch, eager and compiled, at the size of 2s3z.

The sizes are those of a minibatch in JaxMARL's setting: 128 steps, 32 environments of 5 agents, layers of 128.
torch.compile is left out for the GRU and the advantages, whose loop over 128 steps it unrolls for many minutes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.measure import Bound, Case, Samples, in_turns
from kpg_fast.kernels import agent_embedding as embedding
from kpg_fast.kernels import gae, gru, k_level_surrogate, linear, value_loss
from kpg_fast.kernels.k_level_surrogate.ref import k_level_surrogate as surrogate
from kpg_fast.kernels.lookahead import gru_difference
from kpg_fast.kernels.lookahead import ref as lookahead

STEPS, ENVS, AGENTS, OBS, HIDDEN, ACTIONS = 128, 32, 5, 127, 128, 10
ROWS = ENVS * AGENTS


@dataclass(frozen=True)
class Op:
    """Ours, the definition, and tensors for both; ``graded`` says which of them a gradient is taken of."""

    ours: Callable[..., Tensor]
    ref: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    graded: tuple[int, ...] = ()
    compiled: bool = True


def _bound(name: str) -> Bound | None:
    """Forward and both products of the way back; a difference has two products for each of the forward pass."""
    kind, *rest = name.split("/")
    if kind == "linear":
        size, out = map(int, rest[0].split("x"))
        products = 3 * size * out
    elif kind in ("gru", "gru_difference"):
        products = (3 if kind == "gru" else 2) * 6 * HIDDEN**2
    else:
        return None
    return Bound.of_time("bf16" if rest[-1] == "bf16" else "fp32", 2 * STEPS * ROWS * products)


def _layer(size: int, out: int, activation: str, precision: str) -> Op:
    x, w = torch.randn(1, STEPS * ROWS, size), torch.randn(1, size, out) / size**0.5
    return Op(
        lambda x, w, b: linear.linear(x, w, b, activation, precision),
        lambda x, w, b: linear.ref.linear(x, w, b, activation),
        (x, w, torch.zeros(1, out)),
        (0, 1, 2),
    )


def _cell() -> tuple[Tensor, ...]:
    x, h0 = torch.randn(1, STEPS, ROWS, HIDDEN), torch.zeros(1, ROWS, HIDDEN)
    w_x, w_h = (torch.randn(1, HIDDEN, 3 * HIDDEN) / HIDDEN**0.5 for _ in range(2))
    reset = torch.rand(STEPS, ROWS) < 0.02
    return x, h0, reset, w_x, torch.zeros(1, 3 * HIDDEN), w_h, torch.zeros(1, HIDDEN)


def _gru(precision: str) -> Op:
    return Op(partial(gru.gru, precision=precision), gru.ref.gru, _cell(), (0, 3, 4, 5, 6), compiled=False)


def _four(weights: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    w_x, b_x, w_h, b_n = weights
    return w_x, b_x, w_h, b_n


def _gru_difference() -> Op:
    x, h0, reset, *weights = _cell()
    moved = [w + 1e-3 * torch.randn_like(w) for w in weights]
    h, gates = gru.gru_and_gates(x, h0, reset, *_four(tuple(weights)))
    dx = 1e-3 * torch.randn_like(x)

    def two_passes(x: Tensor, dx: Tensor, h0: Tensor, reset: Tensor, *both: Tensor) -> Tensor:
        return lookahead.gru_difference(x, dx, h0, reset, _four(both[:4]), _four(both[4:]))

    def ours(x: Tensor, dx: Tensor, h0: Tensor, reset: Tensor, *both: Tensor) -> Tensor:
        return gru_difference(x, dx, h, gates, h0, reset, _four(both[:4]), _four(both[4:]))

    return Op(ours, two_passes, (x, dx, h0, reset, *weights, *moved), compiled=False)


def _surrogate() -> Op:
    shape = STEPS, ENVS, AGENTS
    logits, avail = torch.randn(*shape, ACTIONS), torch.rand(*shape, ACTIONS) < 0.6
    avail[..., 0] = True
    rows = torch.full(shape, -1.0), torch.randn(shape), torch.ones(shape), 0.1 * torch.randn(shape)
    ref = partial(surrogate, clip_eps=0.2, ent_coef=0.0, clip_mode="product", others_clip_eps=0.2)
    return Op(
        lambda *a: k_level_surrogate.k_level_surrogate(*a, clip_eps=0.2).loss,
        lambda *a: ref(*a)[0],
        (logits, avail, torch.zeros(shape, dtype=torch.int32), *rows),
        (0,),
    )


def _value_loss() -> Op:
    rows = [torch.randn(STEPS * ROWS) for _ in range(3)]
    return Op(
        value_loss.value_loss,
        partial(value_loss.ref.value_loss, clip_eps=None),
        (*rows, torch.ones(STEPS * ROWS)),
        (0,),
    )


def _gae() -> Op:
    value, reward = torch.randn(STEPS, 4 * ENVS, AGENTS), torch.randn(STEPS, 4 * ENVS)
    ends = torch.rand(2, STEPS, 4 * ENVS) < 0.02
    ref = partial(gae.ref.gae, last_value=None, valid=None, gamma=0.99, gae_lambda=0.95)
    return Op(
        lambda *a: gae.gae(*a, gamma=0.99, gae_lambda=0.95)[0],
        lambda *a: ref(*a)[0],
        (reward, value, torch.randn(4 * ENVS, AGENTS), *ends),
        compiled=False,
    )


def _embedding() -> Op:
    inputs = torch.randn(1, STEPS * ENVS, HIDDEN), torch.randn(1, AGENTS, HIDDEN)
    return Op(embedding.agent_embedding, embedding.ref.agent_embedding, inputs, (0, 1))


OPS: dict[str, Callable[[], Op]] = {
    **{f"linear/{i}x{o}/{p}": partial(_layer, i, o, act, p)
       for i, o, act in ((OBS, HIDDEN, "relu"), (HIDDEN, ACTIONS, "none")) for p in ("fp32", "bf16")},
    **{f"gru/{p}": partial(_gru, p) for p in ("fp32", "bf16")},
    "gru_difference/bf16": _gru_difference,
    "agent_embedding": _embedding,
    "k_level_surrogate": _surrogate,
    "value_loss": _value_loss,
    "gae": _gae,
}  # fmt: skip


def measure(name: str) -> Samples:
    """Milliseconds of the op and, where it has one, its gradient; ours, eager and compiled by turns."""
    op = OPS[name]()
    inputs = [t.requires_grad_() if i in op.graded else t for i, t in enumerate(op.inputs)]
    wanted = [inputs[i] for i in op.graded]

    def work(f: Callable[..., Tensor]) -> Any:
        y = f(*inputs)
        return torch.autograd.grad(y, wanted, torch.ones_like(y)) if wanted else y

    contenders: dict[str, Callable[[], Any]] = {"ours": partial(work, op.ours), "eager": partial(work, op.ref)}
    if op.compiled:
        contenders["compiled"] = partial(work, torch.compile(op.ref))
    seconds = in_turns(contenders, repeats=9)
    return {contender: [1e3 * s for s in samples] for contender, samples in seconds.items()}


def cases(peers: str | None = None) -> list[Case]:
    """Every op against torch in eager mode; what torch.compile makes of it stands beside."""
    return [
        Case(
            name=f"op.{name}",
            metric="op_ms",
            unit="ms",
            run=partial(measure, name),
            reference="eager",
            higher_is_better=False,
            settings={"steps": STEPS, "envs": ENVS, "agents": AGENTS},
            tests=("tests/kernels",),
            quick=name == "gae",
            bound=_bound(name),
        )
        for name in OPS
    ]
