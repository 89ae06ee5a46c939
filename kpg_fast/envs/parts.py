"""What batches made of several batches have in common: the parts' arrays lie side by side, and all step together."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kpg_fast.envs.vec_env import Array, StepArrays, VecEnv


class Parts:
    """Batches of the same environment and size as one."""

    def __init__(self, parts: Sequence[VecEnv]) -> None:
        self.parts: list[Any] = list(parts)
        """Each with its own ``state_dict``, ``load_state_dict`` and ``close``."""
        self.each = parts[0].spec.num_envs
        self.spec = replace(parts[0].spec, num_envs=self.each * len(parts))

    def envs_of(self, index: int) -> slice:
        """The environments of a part."""
        return slice(index * self.each, (index + 1) * self.each)

    def reset(self, out: StepArrays) -> None:
        """See :class:`VecEnv`."""
        for index, part in enumerate(self.parts):
            part.reset(out.part(self.envs_of(index)))

    def step(self, action: Array, out: StepArrays) -> None:
        """See :class:`VecEnv`."""
        self.step_async(action, out)
        self.step_wait()

    def step_async(self, action: Array, out: StepArrays) -> None:
        """See :class:`VecEnv`."""
        for index, part in enumerate(self.parts):
            envs = self.envs_of(index)
            part.step_async(action[envs], out.part(envs))

    def step_wait(self) -> None:
        """See :class:`VecEnv`."""
        for part in self.parts:
            part.step_wait()

    def close(self) -> None:
        """See :class:`VecEnv`."""
        for part in self.parts:
            part.close()
