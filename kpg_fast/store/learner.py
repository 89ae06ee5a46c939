"""Parameters that are learned: their slots in the store, their optimiser, and steps out of place.

A level step reads theta and the optimiser's state and writes elsewhere, so there is nothing to restore and nothing to
forget to restore. Exactly one step a minibatch is committed.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kpg_fast.kernels.level_step import level_step, state_names
from kpg_fast.store.drift import DriftCheck
from kpg_fast.store.parameters import Layout, ParameterStore


class Learner:
    """G parameter sets of one layout that are stepped together.

    Args:
        shapes: parameter shapes of one set.
        groups: G.
        optimizer: ``adam``, ``rmsprop`` or ``sgd``.
        lr: learning rate; assign ``.lr`` to change it.
        max_grad_norm: global norm each set's gradient is clipped to.
        eps: the optimiser's epsilon (JaxMARL: 1e-5).
        more_slots: further copies of the parameters, kept for a resume as theta is (targets).
        device: where everything lies.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        groups: int,
        optimizer: str,
        lr: float,
        max_grad_norm: float,
        eps: float = 1e-5,
        dtype: torch.dtype = torch.float32,
        more_slots: tuple[str, ...] = (),
        debug_drift: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.groups, self.optimizer, self.lr, self.max_grad_norm, self.eps = groups, optimizer, lr, max_grad_norm, eps
        self.dtype, self.more_slots = dtype, more_slots
        self.moments = state_names(optimizer)
        slots = ["theta", *self.moments, "odd", "even", *[f"{name}_k" for name in self.moments], "grad", *more_slots]
        self.store = ParameterStore(Layout(shapes), groups, slots, dtype, device)
        self.theta = self.store.views("theta")
        self.steps = 0
        self.correction = 1.0
        """What learning rate and epsilon of the next step are multiplied by: see `OffPolicyAlgorithm.correct_rates`."""
        self.drift = DriftCheck(self.store, self.moments) if debug_drift else None
        self.grad_norm = torch.zeros(groups, dtype=dtype, device=device)
        self.rates: Tensor | None = None
        """On a card the two factors of the next step, which then stand for ``lr``, ``steps`` and ``correction``: see
        `level_step`."""

    def views(self, slot: str) -> dict[str, Tensor]:
        """The parameters of a slot by name, each [G, ...], sharing its memory."""
        return self.store.views(slot)

    def leaves(self) -> dict[str, Tensor]:
        """Theta by name as leaves of a new autograd graph."""
        return {name: view.detach().requires_grad_() for name, view in self.theta.items()}

    def level_slot(self, k: int) -> str:
        """Where level k is written: theta itself for 0, else one of two slots by turns."""
        return "theta" if k == 0 else ("odd" if k % 2 else "even")

    def step(self, grads: tuple[Tensor, ...], k: int) -> str:
        """Write theta^(k), one step from theta along ``grads`` (in the layout's order); returns its slot."""
        for view, grad in zip(self.store.views("grad").values(), grads, strict=True):
            view.copy_(grad)
        slot, store = self.level_slot(k), self.store
        if self.drift and k == 1:
            self.drift.begin()
        settings: dict[str, Any] = {
            "optimizer": self.optimizer,
            "lr": self.lr * self.correction,
            "eps": self.eps * self.correction,
            "max_grad_norm": self.max_grad_norm,
            "step": self.steps + 1,
        }
        self.grad_norm = level_step(
            store.slot("theta"),
            store.slot("grad"),
            [store.slot(name) for name in self.moments],
            store.slot(slot),
            [store.slot(f"{name}_k") for name in self.moments],
            rates=self.rates,
            **settings if self.rates is None else settings | {"eps": self.eps},
        )
        if self.drift:
            self.drift.after_level(k, slot, **settings)
        return slot

    def commit(self, slot: str) -> None:
        """Make the last level's step the new theta and keep its optimiser state."""
        self.store.copy(slot, "theta")
        for name in self.moments:
            self.store.copy(f"{name}_k", name)
        self.steps += 1
        if self.drift:
            self.drift.after_commit()

    def distance(self, slot: str, other: str) -> Tensor:
        """Sum over the G sets of the Euclidean distance between two slots."""
        difference: Tensor = self.store.slot(slot) - self.store.slot(other)
        return difference.square().sum(1).sqrt().sum()

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and optimiser state, for an exact resume."""
        return {name: self.store.slot(name) for name in ("theta", *self.moments, *self.more_slots)}
