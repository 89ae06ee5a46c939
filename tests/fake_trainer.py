"""A trainer that learns nothing in no time, with everything a run has to keep: tensors, a generator, counters."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kpg_fast.config import Config
from kpg_fast.envs import VecEnv
from kpg_fast.errors import UsageError

SMALL = ("--num-envs", "4", "--num-steps", "8", "--num-minibatches", "2", "--hidden", "6", "--eval-episodes", "3")
"""Flags of a configuration whose updates are 32 environment steps."""


class FakeTrainer:
    """Its win rate rises from 0 to 1; its weights walk at random, so that a lost or repeated draw shows."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.facts = {"flavour": "fake", "map": config.env}
        self.updates, self.num_updates = 0, config.num_updates
        self.generator = torch.Generator().manual_seed(config.seed)
        self.weight = torch.zeros(config.settings.hidden)
        self.before_update: Callable[[int], None] = lambda update: None
        self.closed = False

    @property
    def env_steps(self) -> int:
        return self.updates * self.config.settings.num_envs * self.config.settings.num_steps

    def update(self) -> dict[str, float]:
        self.before_update(self.updates + 1)
        self.weight += torch.randn(self.weight.shape, generator=self.generator)
        self.updates += 1
        return {
            "win_rate": self.updates / self.num_updates if self.updates > 1 else float("nan"),
            "return_mean": float(self.weight.sum()),
            "length_mean": 20.0,
            "episodes": 4.0,
            "env_sps": 1000.0,
            "agent_sps": 3000.0,
            "time/env": 1.0,
            "time/policy": 2.0,
            "time/levels": 4.0,
            "time/critic": 1.0,
            "contraction_ratio": 0.5 if self.updates < 2 else 1.5,
        }

    def evaluate(self, episodes: int, watch: Callable[[VecEnv], None] | None = None) -> dict[str, float]:
        draw = float(torch.rand((), generator=torch.Generator().manual_seed(self.updates)))
        won = self.updates / self.num_updates
        return {"eval/win_rate": won, "eval/return_mean": draw, "eval/length_mean": 10.0, "eval/episodes": episodes}

    def tensors(self) -> dict[str, Tensor]:
        return {"weight": self.weight, "generator": self.generator.get_state()}

    def counters(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        if tensors["weight"].shape != self.weight.shape:
            raise UsageError(f"weight has shape {tuple(tensors['weight'].shape)} in the checkpoint")
        self.weight.copy_(tensors["weight"])
        self.generator.set_state(tensors["generator"])
        self.updates = counters["updates"]

    def close(self) -> None:
        self.closed = True
