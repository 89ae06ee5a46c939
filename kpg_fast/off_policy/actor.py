"""Deterministic actors: what they do on a minibatch, and the gradient of anything with respect to it.

Continuous actions are tanh of the output, in [-1, 1]; padded actuators of smaller agents are always 0. Discrete ones
are straight-through Gumbel-softmax: the one-hot of the largest logit plus noise, with the softmax's slope. The noise is
drawn once a minibatch and is the same at every level.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kpg_fast.envs import EnvSpec
from kpg_fast.kernels.layout import Parameters
from kpg_fast.kernels.policy.ref import UNAVAILABLE
from kpg_fast.networks.actor_critic import Network
from kpg_fast.networks.mlp import Buffers, Deltas, Mlp
from kpg_fast.off_policy.experience import Batch
from kpg_fast.off_policy.settings import OffPolicy
from kpg_fast.store.learner import Learner


@dataclass
class Own:
    """What the actors do at theta, with all that its gradient needs; computed once and used by every level."""

    action: Tensor  # [N, R, A]
    slope: Callable[[Tensor], Tensor]
    """Gradient at the actions [N, R, A] -> gradient at the network's outputs."""
    outputs: Any
    """What the network needs to go back."""
    y: Tensor
    """The network's outputs [N, R, A], for discrete actions their logits."""


class FeedForward:
    """The actors' perceptron, with its gradient by hand."""

    recurrent = False

    def __init__(
        self, inputs: int, settings: OffPolicy, out_size: int, buffers: Buffers, precision: str = "fp32"
    ) -> None:
        self.net = Mlp(inputs, settings.hidden, out_size, precision)
        self.buffers = buffers
        self.shapes, self.initialise = self.net.shapes(), self.net.initialise

    def __call__(self, p: Parameters, x: Tensor, steps: int, name: str) -> tuple[Tensor, Any]:
        """Outputs [N, R, out] at inputs [N, R, I], and the tape; both are overwritten by the next pass of this name."""
        tape = self.net.forward(p, grouped(x, p), self.buffers, name)
        return tape.y.view(*x.shape[:2], -1), tape

    def tracked(self, learner: Learner, x: Tensor, steps: int) -> tuple[Tensor, Any]:
        """The same at theta, with what :meth:`gradient` needs."""
        return self(learner.theta, x, steps, "actor.own")

    def deltas(self, learner: Learner, tape: Any, dy: Tensor, name: str) -> Deltas:
        """Propagate ``dy`` [N, R, out] back through the layers."""
        return self.net.deltas(learner.theta, tape, dy.view(tape.y.shape), self.buffers, f"actor.{name}")

    def gradient(self, learner: Learner, tape: Any, deltas: Deltas) -> tuple[Tensor, ...]:
        """The parameters' gradient, in the learner's own memory for it."""
        out = learner.views("grad")
        self.net.gradient(tape, deltas, out)
        return tuple(out.values())


class Recurrent:
    """The actors' GRU network, unrolled over whole episodes, with its gradient by autograd."""

    recurrent = True

    def __init__(self, inputs: int, settings: OffPolicy, out_size: int) -> None:
        self.net = Network(inputs, settings.hidden, out_size, recurrent=True, out_gain=0.01)
        self.shapes, self.initialise = self.net.shapes(), self.net.initialise

    def __call__(self, p: Parameters, x: Tensor, steps: int, name: str) -> tuple[Tensor, Any]:
        """Outputs [N, R, out] at inputs [N, R, I] of R = steps * B rows, from the start of episodes."""
        with torch.no_grad():
            return self._unroll(p, x, steps), None

    def tracked(self, learner: Learner, x: Tensor, steps: int) -> tuple[Tensor, Any]:
        """The same at theta, with what :meth:`gradient` needs."""
        leaves = learner.leaves()
        y = self._unroll(leaves, x, steps)
        return y.detach(), (y, tuple(leaves.values()))

    def _unroll(self, p: Parameters, x: Tensor, steps: int) -> Tensor:
        groups, n = p["in.w"].shape[0], x.shape[0]
        by_step = x.view(n, steps, -1, x.shape[-1])  # [N, T, B, I]
        rows = by_step.permute(1, 2, 0, 3)[None] if groups == 1 else by_step.unsqueeze(3)
        batch = by_step.shape[2]
        hidden = self.net.hidden_state(groups, batch * n // groups, x.dtype, x.device)
        y, _ = self.net(p, rows, hidden, torch.zeros(steps, batch, dtype=torch.bool, device=x.device))
        return (y[0].permute(2, 0, 1, 3) if groups == 1 else y.squeeze(3)).flatten(1, 2)

    def step(self, p: Parameters, x: Tensor, hidden: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """One step of acting: outputs [N, E, out] at inputs [N, E, I], and the hidden state [G, R, H] after it."""
        groups = p["in.w"].shape[0]
        rows = x.transpose(0, 1)[None, None] if groups == 1 else x[:, None, :, None]
        y, hiddens = self.net(p, rows, hidden, reset[None])
        return (y[0, 0].transpose(0, 1) if groups == 1 else y[:, 0, :, 0]), hiddens[:, 0]

    def deltas(self, learner: Learner, outputs: Any, dy: Tensor, name: str) -> Tensor:
        """The outputs' gradient itself: the way back depends on all steps at once, so nothing can be kept of it."""
        return dy

    def gradient(self, learner: Learner, outputs: Any, deltas: Tensor) -> tuple[Tensor, ...]:
        """The parameters' gradient."""
        y, leaves = outputs
        grads: tuple[Tensor, ...] = torch.autograd.grad(y, leaves, deltas, retain_graph=True)
        return grads


class Actor:
    """The policies of all agents, shared or one each."""

    def __init__(
        self,
        spec: EnvSpec,
        settings: OffPolicy,
        inputs: int,
        dtype: torch.dtype,
        debug_drift: bool = False,
        precision: str = "fp32",
        device: torch.device | None = None,
    ) -> None:
        self.spec, self.settings, self.inputs, self.precision, self.device = spec, settings, inputs, precision, device
        self.buffers = Buffers(dtype, device)
        self.network: FeedForward | Recurrent = (
            Recurrent(inputs, settings, spec.num_actions)
            if settings.recurrent
            else FeedForward(inputs, settings, spec.num_actions, self.buffers, precision)
        )
        self.learner = Learner(
            self.network.shapes,
            1 if settings.shared_actor else spec.num_agents,
            settings.optimizer,
            settings.lr,
            settings.max_grad_norm,
            settings.eps,
            dtype,
            more_slots=("target",),
            debug_drift=debug_drift,
            device=device,
        )
        self.moving = moving_actuators(spec, dtype).to(device)

    def initialise(self, generator: torch.Generator) -> None:
        """Random parameters; the target begins as a copy."""
        self.network.initialise(self.learner.theta, generator)
        self.learner.store.copy("theta", "target")

    def on_host(self) -> "Actor":
        """The policies on the CPU: themselves, or copies of those on a card (tf32 is then float32)."""
        if self.device is None or self.device.type == "cpu":
            return self
        precision = "fp32" if self.precision == "tf32" else self.precision
        copy = Actor(self.spec, self.settings, self.inputs, self.learner.dtype, precision=precision)
        copy.learner.store.slot("theta").copy_(self.learner.store.slot("theta"))
        return copy

    def noise(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """Gumbel noise [N, R, A] for a minibatch; none with continuous actions."""
        return None if self.spec.continuous else self.gumbel(batch.action.shape, generator)

    def gumbel(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Gumbel noise of this shape, drawn on the host."""
        return torch.empty(shape, dtype=self.learner.dtype).exponential_(generator=generator).log_().neg_()

    def own(self, batch: Batch, noise: Tensor | None) -> Own:
        """What the actors do at theta, ready to be differentiated."""
        y, outputs = self.network.tracked(self.learner, batch.obs, batch.steps)
        if noise is None:
            action = torch.tanh(y) * self.moving
            square = self.moving - action.square()  # the slope of tanh, 0 where nothing moves
            return Own(action, lambda d: d * square, outputs, y)
        soft = torch.softmax(_masked(y, batch.avail) + noise, -1)
        return Own(_one_hot(soft), lambda d: soft * (d - (soft * d).sum(-1, keepdim=True)), outputs, y)

    def actions(self, slot: str, batch: Batch, noise: Tensor | None) -> Tensor:
        """What the actors with the parameters in ``slot`` do, [N, R, A]; no gradient."""
        y, _ = self.network(self.learner.views(slot), batch.obs, batch.steps, "actor")
        if noise is None:
            return torch.tanh(y) * self.moving
        return _one_hot(_masked(y, batch.avail) + noise)

    def target_actions(self, batch: Batch) -> Tensor:
        """What the target actors do after every step, without noise, [N, R, A]; no gradient."""
        if self.network.recurrent:
            y, _ = self.network(self.learner.views("target"), batch.whole_obs, batch.steps + 1, "actor")
            y = y[:, -batch.reward.shape[0] :]
        else:
            y, _ = self.network(self.learner.views("target"), batch.next_obs, batch.steps, "actor")
        return torch.tanh(y) * self.moving if self.spec.continuous else _one_hot(_masked(y, batch.next_avail))

    def regulariser(self, batch: Batch, own: Own) -> Tensor | None:
        """Gradient at the outputs [N, R, A] of actor_reg * mean square; the mean of an actor of its own is its own.

        The square of continuous actions, or of the logits of available ones.
        """
        if self.settings.actor_reg == 0:
            return None
        dims = self.moving.sum() if self.settings.shared_actor else self.moving.sum(2, keepdim=True)
        weight = (2 * self.settings.actor_reg / dims) * batch.weight[:, None]
        if self.spec.continuous:
            return own.slope(weight * own.action)
        logits = own.y.detach()
        return weight * (logits if batch.avail is None else logits.masked_fill(~batch.avail, 0.0))


def moving_actuators(spec: EnvSpec, dtype: torch.dtype) -> Tensor:
    """1 for each actuator that moves anything, 0 for padding, [N, 1, A]."""
    if spec.action_low is None or spec.action_high is None:
        return torch.ones(spec.num_agents, 1, spec.num_actions, dtype=dtype)
    return torch.from_numpy(spec.action_high > spec.action_low).to(dtype)[:, None]


def grouped(x: Tensor, p: Parameters) -> Tensor:
    """Rows [N, R, F] as the parameters want them: [1, N * R, F] if shared, else as they are."""
    return x if p["in.w"].shape[0] == x.shape[0] else x.reshape(1, -1, x.shape[-1])


def _masked(logits: Tensor, avail: Tensor | None) -> Tensor:
    return logits if avail is None else logits.masked_fill(~avail, -UNAVAILABLE)


def _one_hot(scores: Tensor) -> Tensor:
    """One-hot of the largest, the first of equals."""
    return torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1)
