"""K-level policy gradients for any torch modules and optimisers: Algorithm 1 in place of ``optimizer.step()``."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from kpg_fast.errors import UsageError, unknown_name
from kpg_fast.store.module_snapshot import ModuleSnapshot

Modules = TypeVar("Modules", bound=nn.Module | Sequence[nn.Module])


def k_level_step(
    modules: Modules,
    optimizers: Optimizer | Sequence[Optimizer],
    loss: Callable[[Modules, Any, int], Tensor | Sequence[Tensor]],
    anticipate: Callable[[Modules], Any],
    levels: int,
    *,
    level1_others: Literal["base", "current"] = "base",
    max_grad_norm: float | None = None,
) -> list[Tensor]:
    """Commit one K-level policy gradient step (arXiv 2509.12117, Algorithm 1) of all agents.

    For k = 1..K, all agents at once: ``theta_i^(k) = theta_i - step(grad_i L_i(theta_i, others^(k-1)))``. Every level
    starts from the same parameters and the same optimiser state, step counts included; the last one is kept. The result
    is one ordinary optimiser step whose gradient knows what the others are about to do. K = 1 is the base algorithm.

    Call it once a minibatch in place of ``zero_grad(); loss.backward(); step()``, with functions that close over the
    minibatch. A critic is trained outside, once.

    Args:
        modules: the actors: a module an agent (any sequence), or one that all share. Handed on to ``loss`` and
            ``anticipate`` as it is.
        optimizers: one for all or several, as in ``torch.optim`` (not LBFGS: its step needs a closure). They may hold
            more than the modules' parameters; whatever they hold is stepped and restored alike.
        loss: ``loss(own_modules, others, k)`` -> L, the sum or mean over agents of L_i at level k, as one scalar.
            ``own_modules`` are ``modules`` at level 0: evaluate agent i's own policy with them, and take what the other
            agents do from ``others`` alone, then the gradient of the scalar is every agent's own gradient. Where L_i
            does evaluate other agents' modules, return a sequence, one scalar a module in their order: each is then
            differentiated by its own module's parameters only.
        anticipate: ``anticipate(modules)`` -> what the others are seen to do (log-probabilities, actions, ...), called
            without gradient while the modules hold theta^(k); a tensor or any nest of tuples, lists and dicts, handed
            to ``loss`` at level k+1. Leaving agent i itself out of it is the loss's business. Called K - 1 times.
        levels: K >= 1.
        level1_others: ``others`` at level 1: ``base`` hands ``None`` (the loss then is the base algorithm's: ratio 1
            for the others in MAPPO, the buffer's actions in MADDPG), ``current`` what ``anticipate`` sees at level 0.
        max_grad_norm: clip each module's gradient to this norm, as ``torch.nn.utils.clip_grad_norm_``.

    Returns:
        The loss of every level, detached (the sum if the loss is a sequence).

    Side effects beside the committed step:
        ``.grad`` of every parameter that the optimisers hold is ``None`` afterwards; other gradients, frozen parameters
        and parameters without an optimiser are not touched. Buffers (batch statistics, say) come out as after
        the forward pass of one level at level 0. The default random generators are set back before every call of
        ``loss`` and ``anticipate``: all levels see the same noise. Hooks of the optimisers and modules run at every
        level; a scheduler's ``step`` belongs after this call. Should a callable raise, everything is as before.

    Raises:
        UsageError: ``levels < 1``, ``max_grad_norm`` not above 0, LBFGS, nothing to optimise, a loss that is no scalar
            or has no gradient.
    """
    actors, steppers = _listed(modules, nn.Module, "modules"), _listed(optimizers, Optimizer, "optimizers")
    _check(steppers, levels, level1_others, max_grad_norm)
    gradients = _Gradients(actors, steppers)
    snapshot, noise = ModuleSnapshot(actors, steppers), _Noise(gradients.parameters)

    def begin() -> None:
        noise.rewind()
        torch.clear_autocast_cache()  # an autocast around the call keeps its casts of the last level's weights

    @torch.no_grad()
    def seen() -> Any:
        begin()
        # what is a parameter itself, or a view of one, must not follow it back to level 0
        others = tree_map_only(Tensor, lambda x: x.clone() if snapshot.covers(x) else x.detach(), anticipate(modules))
        snapshot.restore()
        return others

    losses: list[Tensor] = []
    try:
        others = seen() if level1_others == "current" else None
        for k in range(1, levels + 1):
            begin()
            losses.append(gradients.compute(loss(modules, others, k)))
            gradients.clip(max_grad_norm)
            for stepper in steppers:
                stepper.step()
            if k < levels:
                others = seen()
    except BaseException:
        snapshot.restore()
        noise.rewind()
        raise
    finally:
        gradients.clear()
        torch.clear_autocast_cache()
    return losses


class _Gradients:
    """``.grad`` of the parameters that are optimised, and of nothing else."""

    def __init__(self, actors: list[nn.Module], optimizers: list[Optimizer]) -> None:
        held = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        self.parameters = list({id(p): p for p in held}.values())
        optimised = {id(p) for p in self.parameters if p.requires_grad}
        self._trained = [p for p in self.parameters if p.requires_grad]
        self._own = [[p for p in actor.parameters() if id(p) in optimised] for actor in actors]
        self._once = {id(actor): own for actor, own in zip(actors, self._own, strict=True)}.values()
        if not any(self._own):
            raise UsageError("the optimizers hold no parameter of the modules that requires a gradient")

    def clear(self) -> None:
        for p in self.parameters:
            p.grad = None

    def compute(self, loss: Tensor | Sequence[Tensor]) -> Tensor:
        """Fill ``.grad``; returns the loss without its graph, summed if there are several."""
        self.clear()
        if isinstance(loss, Tensor):
            parts = [(loss, self._trained)]
        else:
            if len(loss) != len(self._own):
                raise UsageError(f"loss returned {len(loss)} scalars for {len(self._own)} modules")
            parts = [(part, own) for part, own in zip(loss, self._own, strict=True) if own]
        for index, (part, own) in enumerate(parts):
            if part.numel() != 1 or not part.requires_grad:
                raise UsageError(
                    "loss must return a scalar that depends on the modules' parameters; got "
                    f"shape {list(part.shape)}, requires_grad={part.requires_grad}"
                )
            part.backward(inputs=own, retain_graph=index + 1 < len(parts))  # type: ignore[no-untyped-call]
        if all(p.grad is None for p in self._trained):
            raise UsageError("loss does not depend on any parameter that the optimizers hold")
        return torch.stack([part.detach().reshape(()) for part, _ in parts]).sum()

    def clip(self, max_norm: float | None) -> None:
        if max_norm is not None:
            for own in self._once:
                nn.utils.clip_grad_norm_(own, max_norm)


class _Noise:
    """The state of torch's default generators (the CPU's, and the parameters' CUDA devices') when this was made."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self._cpu = torch.get_rng_state()
        devices = {p.device for p in parameters if p.device.type == "cuda"}
        self._cuda = {device: torch.cuda.get_rng_state(device) for device in devices}

    def rewind(self) -> None:
        torch.set_rng_state(self._cpu)
        for device, state in self._cuda.items():
            torch.cuda.set_rng_state(state, device)


def _listed(given: Any, kind: type[Any], name: str) -> list[Any]:
    alone = isinstance(given, kind) and not isinstance(given, nn.ModuleList)
    members = [given] if alone else list(given)
    wrong = [type(member).__name__ for member in members if not isinstance(member, kind)]
    if wrong or not members:
        raise UsageError(f"{name} must be one or more {kind.__module__}.{kind.__name__}; got {wrong or 'none'}")
    return members


def _check(optimizers: list[Optimizer], levels: int, level1_others: str, max_grad_norm: float | None) -> None:
    if not isinstance(levels, Integral) or isinstance(levels, bool) or levels < 1:
        raise UsageError(f"levels must be an integer of at least 1 (1 is the base algorithm); got {levels!r}")
    if level1_others not in ("base", "current"):
        raise unknown_name("level1_others", level1_others, ("base", "current"))
    if max_grad_norm is not None and not (isinstance(max_grad_norm, Real) and max_grad_norm > 0):
        raise UsageError(f"max_grad_norm must be a number above 0, or None; got {max_grad_norm!r}")
    if any(isinstance(optimizer, torch.optim.LBFGS) for optimizer in optimizers):
        raise UsageError("LBFGS evaluates the loss several times a step; a level is one gradient and one step")
