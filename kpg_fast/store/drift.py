"""Does the recursion keep its promise? Every level starts from theta, and one optimiser step is committed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kpg_fast.kernels.level_step import ref
from kpg_fast.store.parameters import ParameterStore


class DriftError(RuntimeError):
    """Theta or the optimiser's state moved while the levels ran, or a level is not one step from theta."""


class DriftCheck:
    """Watch the slots of a K-level update (``--debug-drift``): :meth:`begin`, then after each step :meth:`after_level`,
    and :meth:`after_commit` at the end.

    Args:
        store: where the parameters are.
        state: the optimiser's slots, in the order of :func:`kpg_fast.kernels.level_step.state_names`.
        theta: slot of level 0.
        grad: slot that holds the gradient a level was stepped along.
    """

    def __init__(self, store: ParameterStore, state: Sequence[str], theta: str = "theta", grad: str = "grad") -> None:
        self._store, self._watched, self._grad = store, (theta, *state), grad
        self._sums: dict[str, int] = {}
        self._before: list[Tensor] = []
        self._expected: list[Tensor] = []

    def begin(self) -> None:
        """Remember theta and the optimiser's state as they are before level 1."""
        self._sums = {slot: self._store.checksum(slot) for slot in self._watched}
        self._before = [self._store.slot(slot).to(torch.float64, copy=True) for slot in self._watched]

    def after_level(self, k: int, theta_k: str, **settings: Any) -> None:
        """Check level ``k`` once it is written to slot ``theta_k``.

        Args:
            k: the level, from 1.
            theta_k: its slot.
            settings: ``optimizer, lr, betas, alpha, eps, momentum, max_grad_norm, step`` of the level step.

        Raises:
            DriftError: theta or the state is not what it was, or theta^(k) is not one step from theta.
        """
        for slot, checksum in self._sums.items():
            if self._store.checksum(slot) != checksum:
                raise DriftError(f"level {k} changed slot {slot}: every level must leave theta and the state alone")
        theta, *state = self._before
        stepped, new_state, _ = ref.level_step(theta, self._store.slot(self._grad).double(), state, **settings)
        self._expected = [stepped, *new_state]
        self._require_one_step(f"theta^({k})", self._store.slot(theta_k), theta, stepped)

    def after_commit(self) -> None:
        """Check theta and the state once the last level is committed.

        Raises:
            DriftError: one of them is not one optimiser step from what it was at :meth:`begin`.
        """
        for slot, before, expected in zip(self._watched, self._before, self._expected, strict=True):
            self._require_one_step(f"slot {slot} after the commit", self._store.slot(slot), before, expected)

    def _require_one_step(self, name: str, found: Tensor, before: Tensor, expected: Tensor) -> None:
        # rounding of the result, and a relative error of the step that float32 arithmetic stays far below
        rounding = 4 * torch.finfo(found.dtype).eps * torch.maximum(before.abs(), expected.abs())
        allowed = rounding + 1e-3 * (expected - before).abs() + torch.finfo(found.dtype).tiny
        error = (found.double() - expected).abs()
        wrong = ~(error <= allowed) & ~(found.isnan() & expected.isnan())
        if bool(wrong.any()):
            group, index = (int(i) for i in wrong.nonzero()[0])
            moved = float((found.double() - before)[group, index])
            step = float((expected - before)[group, index])
            raise DriftError(
                f"{name} is not one optimiser step from where it started: number {index} of parameter set {group} "
                f"moved by {moved:.3g}, one step is {step:.3g} ({int(wrong.sum())} of {wrong.numel()} are off)"
            )
