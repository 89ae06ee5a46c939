"""The actors' optimiser over a parameter store: lookahead levels beside theta, one committed step in place."""

from typing import Any

from torch import Tensor

from kpg_fast.errors import UsageError
from kpg_fast.kernels.level_step import level_step, state_names
from kpg_fast.parameters import ParameterStore


class Optimizer:
    """One optimiser for the G parameter sets of a slot; each set's gradient is clipped by its own norm.

    Args:
        store: holds every slot of :meth:`slots`.
        optimizer: ``adam``, ``rmsprop`` or ``sgd``; formulas in :mod:`kpg_fast.kernels.level_step`.
        lr: learning rate; set :attr:`lr` before a step to anneal it.
        theta: name of the slot that is optimised; the names of the others derive from it.
        max_grad_norm: None does not clip.
        settings: ``betas``, ``alpha``, ``eps``, ``momentum`` of the optimiser.

    Attributes:
        lr: learning rate of the next steps.
        step: how many steps are committed.
        grad_norm: [G], norms before clipping at the last step, committed or not.

    Raises:
        UsageError: unknown optimiser, a slot that is missing from the store.
    """

    def __init__(
        self,
        store: ParameterStore,
        optimizer: str,
        *,
        lr: float,
        theta: str = "theta",
        max_grad_norm: float | None = None,
        **settings: Any,
    ) -> None:
        self.lr, self.step = lr, 0
        self._optimizer, self._settings = optimizer, {**settings, "max_grad_norm": max_grad_norm}
        self._theta = store.slot(theta)
        self.state_slots = tuple(f"{theta}.{name}" for name in state_names(optimizer, settings.get("momentum", 0.0)))
        self._state = [store.slot(name) for name in self.state_slots]
        self._levels = [store.slot(name) for name in self.level_slots(theta) if name in store.slots]
        self.grad_norm = self._theta.new_zeros(store.groups)

    @staticmethod
    def level_slots(theta: str = "theta") -> tuple[str, str]:
        """Name the two slots that theta^(1), theta^(2), ... alternate between."""
        return f"{theta}^(odd)", f"{theta}^(even)"

    @classmethod
    def slots(cls, optimizer: str, momentum: float = 0.0, theta: str = "theta") -> list[str]:
        """Name what a store needs for this optimiser: theta, its state and the two level slots."""
        state = [f"{theta}.{name}" for name in state_names(optimizer, momentum)]
        return [theta, *state, *cls.level_slots(theta)]

    def lookahead(self, grad: Tensor, k: int) -> Tensor:
        """Write theta^(k), one step from theta, and return its slot [G, P]; theta and the state stay as they are.

        Args:
            grad: gradient of the loss at theta, [G, P].
            k: the level, from 1; odd and even levels have a slot each, so theta^(k-1) is still there.
        """
        if not self._levels:
            raise UsageError(f"the store has no slots {', '.join(self.level_slots())} for lookahead levels")
        theta_k = self._levels[(k - 1) % 2]
        self._level_step(grad, theta_k, None)
        return theta_k

    def commit(self, grad: Tensor) -> Tensor:
        """Take the step: theta, the state and the count move on. Returns theta [G, P]."""
        self._level_step(grad, self._theta, self._state)
        self.step += 1
        return self._theta

    def _level_step(self, grad: Tensor, theta_out: Tensor, state_out: list[Tensor] | None) -> None:
        level_step(
            self._theta,
            grad,
            self._state,
            theta_out,
            state_out,
            optimizer=self._optimizer,
            lr=self.lr,
            step=self.step + 1,
            grad_norm=self.grad_norm,
            **self._settings,
        )
