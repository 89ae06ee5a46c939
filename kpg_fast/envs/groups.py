"""One batch in parts that step in turn, so that a policy acts for one part while others step."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from kpg_fast.envs.parts import Parts
from kpg_fast.envs.vec_env import Array, StepArrays, VecEnv
from kpg_fast.errors import UsageError


class Groups(Parts):
    """Equal parts of a batch behind the interface of environments that take turns of their own (`UnevenVecEnv`).

    Args:
        parts: neighbouring environments each, which step on threads of their own.
        join: makes the state of the whole batch of those of the parts.
        cut: the other way round: of a state, the first environment of a part and how many it has.
    """

    uneven = True

    def __init__(
        self,
        parts: Sequence[VecEnv],
        join: Callable[[list[dict[str, Array]]], dict[str, Array]],
        cut: Callable[[dict[str, Array], int, int], dict[str, Array]],
    ) -> None:
        super().__init__(parts)
        self.join, self.cut = join, cut
        self._out = [StepArrays.empty(part.spec) for part in parts]
        self._stepping: deque[int] = deque()

    def send(self, action: Array, rows: Sequence[int] | NDArray[np.intp]) -> None:
        """See `UnevenVecEnv`; ``rows`` are those of whole parts."""
        for index in sorted(set(np.asarray(rows) // self.each)):
            self.parts[index].step_async(action[self.envs_of(index)], self._out[index])
            self._stepping.append(index)

    def recv(self, out: StepArrays, minimum: int = 1) -> NDArray[np.intp]:
        """See `UnevenVecEnv`; the parts that have stepped longest."""
        ready: list[NDArray[np.intp]] = []
        while len(ready) * self.each < minimum:
            index = self._stepping.popleft()
            self.parts[index].step_wait()
            mine = out.part(self.envs_of(index))
            for f in fields(StepArrays):
                getattr(mine, f.name)[...] = getattr(self._out[index], f.name)
            ready.append(np.arange(self.each) + index * self.each)
        return np.concatenate(ready)

    def metrics(self) -> dict[str, float]:
        """Nothing that the parts do not report themselves."""
        return {}

    def state_dict(self) -> dict[str, Array]:
        """That of the whole batch, had it not been cut."""
        return self.join([part.state_dict() for part in self.parts])

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """See :class:`VecEnv`."""
        mine = {name: np.shape(value) for name, value in self.state_dict().items()}
        if state.keys() != mine.keys():
            raise UsageError(f"not a state of {self.spec.name}: it has {sorted(state)}, not {sorted(mine)}")
        for name, shape in mine.items():
            if np.shape(state[name]) != shape:
                raise UsageError(f"{name} of {self.spec.name} has shape {shape}, not {np.shape(state[name])}")
        for index, part in enumerate(self.parts):
            part.load_state_dict(self.cut(state, index * self.each, self.each))
