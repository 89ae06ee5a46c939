"""What the host decides of an iteration of K-MAPPO: its number, the minibatches, the learning rate, the clip ranges.

Read from tensors, so that a captured iteration takes new ones at every replay.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kpg_fast.config import Config
from kpg_fast.kernels.level_step.ref import BETAS
from kpg_fast.place import Place, Sent


class Schedule:
    """Of S seeds; one iteration at a time."""

    def __init__(self, config: Config, seeds: int, place: Place) -> None:
        s = config.k_mappo
        self.s, self.queued, self.num_updates = s, place.queued, config.num_updates
        self.lr = s.lr
        self.clip_ranges = (s.clip_eps, s.clip_eps_others)
        self._clips = Sent((2,), torch.float32, place.device)
        self._steps = Sent((), torch.int64, place.device)
        self._samples = Sent((s.num_epochs, seeds, s.num_samples), torch.int64, place.device)
        self._rates = Sent((s.num_epochs * s.num_minibatches, 2), torch.float32, place.device)

    @property
    def steps(self) -> Tensor:
        """Steps [] that every environment has taken before the iteration."""
        return self._steps.device

    @property
    def clips(self) -> Tensor | None:
        """The policy's and the others' clip range [2] where the device is to read them."""
        return self._clips.device if self.queued else None

    def begin(self, updates: int) -> None:
        """Set what follows from the number of updates before this one."""
        s = self.s
        self.lr = s.lr * (1 - updates / self.num_updates) if s.anneal_lr else s.lr
        self._steps.host.fill_(updates * s.num_steps)
        self._steps.send()
        if self.queued:
            from kpg_fast.kernels.level_step.gpu import step_sizes  # here, because it imports Triton

            each = len(self._rates.host)
            rates = [step_sizes(s.optimizer, self.lr, BETAS, updates * each + step) for step in range(1, each + 1)]
            self._rates.host.copy_(torch.tensor(rates))
            self._rates.send()
            self._clips.host.copy_(torch.tensor(self.clip_ranges))
            self._clips.send()

    def shuffle(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the minibatches, every seed its own."""
        for epoch in self._samples.host:
            for order, generator in zip(epoch, generators, strict=True):
                order.copy_(torch.randperm(self.s.num_samples, generator=generator))
        self._samples.send()

    def minibatches(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Samples [S, B] of every minibatch, and the two factors of its step where the device is to read them."""
        parts = (part for epoch in self._samples.device for part in epoch.chunk(self.s.num_minibatches, 1))
        for samples, rates in zip(parts, self._rates.device, strict=True):
            yield samples, rates if self.queued else None
