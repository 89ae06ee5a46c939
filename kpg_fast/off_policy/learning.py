"""Minibatch after minibatch: on the CPU one by one, on a card queued, with what the host draws for them sent ahead.

A card repeats one piece of work: the gather of a minibatch from its replay, critics, levels, targets. It is captured
once. What changes lies in tensors that it reads: the samples, the noise of discrete actions and the factors of the two
optimiser steps, all drawn and computed on the host, so that a card and a CPU learn from the same minibatches.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import MutableMapping
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kpg_fast.graphs import Capture, Replayed
from kpg_fast.off_policy.experience import Experience
from kpg_fast.off_policy.update import OffPolicyAlgorithm
from kpg_fast.place import Fetched, Place, Staged, pinned
from kpg_fast.trainer import contraction

_MEANS = ("critic_loss", "q_mean", "critic_grad_norm", "grad_norm")


class Learning(ABC):
    """Updates of an algorithm from its experience; every random number comes from ``generator``."""

    def __init__(self, algorithm: OffPolicyAlgorithm[Any], experience: Experience, generator: torch.Generator) -> None:
        self.algorithm, self.experience, self.generator = algorithm, experience, generator
        self.count = 0
        """Updates since the last reading."""

    @abstractmethod
    def learn(self, count: int, measure: bool, spent: MutableMapping[str, float]) -> None:
        """Update ``count`` times; ``measure`` how far each level of the last one moved. Adds seconds to ``spent``."""

    @abstractmethod
    def read(self) -> tuple[dict[str, float], dict[str, float]]:
        """Means over the updates since the last reading, and what was measured of the last one, as metrics."""


class OnCpu(Learning):
    """One update after the other."""

    def __init__(self, algorithm: OffPolicyAlgorithm[Any], experience: Experience, generator: torch.Generator) -> None:
        super().__init__(algorithm, experience, generator)
        self._sums: dict[str, Any] = defaultdict(float)
        self._last: dict[str, Any] = {}

    def learn(self, count: int, measure: bool, spent: MutableMapping[str, float]) -> None:
        """See :class:`Learning`."""
        for left in reversed(range(count)):
            start = perf_counter()
            batch = self.experience.sample(self.generator)
            spent["time/replay"] += perf_counter() - start
            self._last = last = self.algorithm.update(batch, self.generator, measure and left == 0)
            spent["time/critic"] += last["time/critic"]
            spent["time/levels"] += last["time/levels"]
            for name in _MEANS:
                self._sums[name] += last[name]
        self.count += count

    def read(self) -> tuple[dict[str, float], dict[str, float]]:
        """See :class:`Learning`."""
        means, last = {name: float(value) / self.count for name, value in self._sums.items()}, self._last
        self.count, self._sums, self._last = 0, defaultdict(float), {}
        if "delta/1" not in last:
            return means, {}
        levels = range(1, self.algorithm.levels + 1)
        seconds = {f"time/level_{k}": last[f"time/level_{k}"] for k in levels}
        return means, _moved([float(last[f"delta/{k}"]) for k in levels], seconds)


class OnDevice(Learning):
    """Updates that are queued on a device; nothing waits for them but :meth:`read`.

    Args:
        algorithm: on the place's device.
        experience: with its replay there.
        generator: of the host.
        place: where.
        most: updates that are asked for at once.
        capture: how an update is captured if the place has graphs.
    """

    def __init__(
        self,
        algorithm: OffPolicyAlgorithm[Any],
        experience: Experience,
        generator: torch.Generator,
        place: Place,
        most: int,
        capture: Capture[None] | None,
    ) -> None:
        super().__init__(algorithm, experience, generator)
        s, spec, dtype, device = algorithm.settings, algorithm.spec, algorithm.actor.learner.dtype, place.device
        kinds: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "index": ((s.batch_size,), torch.int64),
            "rates": ((len(algorithm.learners), 2), torch.float32),
        }
        if not spec.continuous:
            kinds["noise"] = ((spec.num_agents, experience.longest * s.batch_size, spec.num_actions), dtype)
        self._drawn = {name: torch.zeros(most, *shape, dtype=kind) for name, (shape, kind) in kinds.items()}
        self.now = {name: torch.zeros(shape, dtype=kind, device=device) for name, (shape, kind) in kinds.items()}
        """What the next update reads."""
        self._queued, self._staged = place.queued, Staged(device)
        if place.queued:
            for learner, rates in zip(algorithm.learners, self.now["rates"], strict=True):
                learner.rates = rates
        self._table = torch.zeros(len(_MEANS) + algorithm.levels, dtype=dtype, device=device)
        self._host = self._table if device.type == "cpu" else pinned(tuple(self._table.shape), dtype)
        self._fetched, self._measured = Fetched(), False
        self._learn = Replayed(self.learn_once, capture if place.graphs else None)

    def learn(self, count: int, measure: bool, spent: MutableMapping[str, float]) -> None:
        """See :class:`Learning`; the seconds are those of the host's draws."""
        start = perf_counter()
        sent = self._send(count)
        spent["time/replay"] += perf_counter() - start
        for update in range(count):
            for name, value in sent.items():
                self.now[name].copy_(value[update])
            self.algorithm.correct_rates()
            steps = [learner.steps for learner in self.algorithm.learners]
            self._learn()
            for learner, before in zip(self.algorithm.learners, steps, strict=True):
                learner.steps = before + 1  # a replay does not count
            self.algorithm.count()
        self.count, self._measured = self.count + count, measure

    def _send(self, count: int) -> dict[str, Tensor]:
        """Draw what ``count`` updates need, in the order of a CPU that learns one by one, and queue the copy."""
        for update in range(count):
            index = self.experience.draw(self.generator)
            self._drawn["index"][update] = index
            if "noise" in self._drawn:
                self._draw_noise(self._drawn["noise"][update], self.experience.steps_of(index))
            if self._queued:
                self._drawn["rates"][update] = torch.tensor(self.algorithm.rates(update))
        return self._staged.send({name: memory.numpy() for name, memory in self._drawn.items()}, np.arange(count))

    def _draw_noise(self, into: Tensor, steps: int) -> None:
        """Noise [N, longest * B, A] for the first ``steps`` steps; the rest is padding, whatever lies there."""
        rows = steps * self.algorithm.settings.batch_size
        into[:, :rows] = self.algorithm.actor.gumbel((into.shape[0], rows, into.shape[2]), self.generator)

    def learn_once(self) -> None:
        """One update, as the device repeats it."""
        batch = self.experience.batch(self.now["index"])
        measured = self.algorithm.learn(batch, self.now.get("noise"), measure=True)
        deltas = [measured[f"delta/{k}"] for k in range(1, self.algorithm.levels + 1)]
        self._table[: len(_MEANS)] += torch.stack([measured[name] for name in _MEANS])
        self._table[len(_MEANS) :] = torch.stack(deltas)

    def read(self) -> tuple[dict[str, float], dict[str, float]]:
        """See :class:`Learning`; waits for the device."""
        if not self.count:
            return {}, {}
        self._fetched.fetch([(self._table, self._host)])
        self._fetched.wait()
        numbers, count = self._host.tolist(), self.count
        self._table.zero_()
        self.count, measured, self._measured = 0, self._measured, False
        means = {name: value / count for name, value in zip(_MEANS, numbers, strict=False)}
        return means, _moved(numbers[len(_MEANS) :], {}) if measured else {}


def _moved(deltas: list[float], seconds: dict[str, float]) -> dict[str, float]:
    """How far every level moved, the seconds of each, and the contraction ratio."""
    return {f"delta/{k}": delta for k, delta in enumerate(deltas, 1)} | seconds | contraction(deltas)
