"""SMAX on a card: the state of all games and all that a step writes stay there, in tensors of torch.

Steps are queued on torch's current stream, so that a graph can capture them together with torch's own work.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kpg_fast.envs.side_by_side import SideBySide
from kpg_fast.envs.smax import layout
from kpg_fast.envs.smax.env import SmaxEnv
from kpg_fast.envs.vec_env import Array, StepArrays
from kpg_fast.errors import UsageError

_STATE = ("floats", "ints", "counters")


class SmaxOnCard(SideBySide):
    """Games of one or several seeds in one launch; actions and ``StepArrays`` are tensors on the card.

    Args:
        hosts: the games on the CPU, a seed each, of one scenario, size and options; they hold what a checkpoint needs.
        device: the card; a CPU where numba-cuda's simulator stands for one.

    Raises:
        UsageError: numba-cuda is not installed, or episodes start where JaxMARL starts them, which the CPU works out.
    """

    def __init__(self, hosts: Sequence[SmaxEnv], device: torch.device) -> None:
        super().__init__(hosts)
        self.driver: Any
        if hosts[0].options.reset_random == "threefry":
            raise UsageError("SMAX option reset_random=threefry is there on the cpu only")
        try:
            from kpg_fast.envs.smax import cuda
        except ImportError as error:
            raise UsageError(f"SMAX on a card needs numba-cuda ({error}): pip install 'kpg_fast[cuda]'") from error
        self.driver, self.device, self.hosts = cuda, device, list(hosts)
        self.parts = [_Part(self, index) for index in range(len(hosts))]
        states = [host.state_dict() for host in hosts]
        self.state = {name: self._place(np.concatenate([state[name] for state in states])) for name in _STATE}
        self.seeds = self._place(np.concatenate([state["seed"] for state in states]).view(np.int64))
        self._fixed = self._place(states[0]["settings"]), self._place(states[0]["kinds"])
        e = self.spec.num_envs
        self._enemy_reward = self._place(np.zeros(e, np.float32))
        self._restart = self._place(np.ones(e, np.bool_))
        nothing = (np.zeros((e, 0, 2), np.float32), np.zeros((e, 0), np.int32), np.zeros((e, 0, 0), np.float32))
        self._no_pairs, self._no_numbers, self._no_deviations = map(self._place, nothing)
        self._no_vectors = self._place(np.zeros((e, 0, layout.CONTINUOUS_ACTIONS), np.float32))

    def reset(self, out: StepArrays) -> None:
        """See :class:`VecEnv`."""
        given = self._no_pairs, self._no_numbers
        self.driver.present(
            *self._games(), self._array(self._restart), self._arrays(*given), None, self._next(out), self._stream()
        )

    def step_async(self, action: Any, out: StepArrays) -> None:
        """Queue a step. What the actions are is not looked at: that would wait for the card."""
        actions = (self._no_numbers, action) if self.spec.continuous else (action, self._no_vectors)
        outcome = (out.reward, self._enemy_reward, out.terminated, out.truncated, out.won, out.valid)
        self.driver.step(
            *self._games(),
            self._arrays(*actions),
            self._arrays(self._no_pairs, self._no_deviations),
            None,
            self._next(out),
            self._arrays(*outcome),
            self._arrays(out.last_obs, out.last_state),
            self._stream(),
        )

    def step_wait(self) -> None:
        """Nothing to wait for: what follows is queued behind the step."""

    def _games(self) -> tuple[Any, ...]:
        settings, kinds = self._arrays(*self._fixed)
        return self._arrays(*self.state.values()), settings, self._array(self.seeds).view(np.uint64), kinds

    def _next(self, out: StepArrays) -> tuple[Any, ...]:
        return self._arrays(out.obs, out.state, out.avail_actions, out.alive)

    def _place(self, array: Array) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _arrays(self, *tensors: Any) -> tuple[Any, ...]:
        return tuple(map(self._array, tensors))

    def _array(self, tensor: Any) -> Any:
        """The same memory as the driver takes it."""
        if self.device.type == "cpu":
            return np.asarray(tensor)
        return self.driver.cuda.as_cuda_array(tensor, sync=False)

    def _stream(self) -> int:
        return torch.cuda.current_stream().cuda_stream if self.device.type == "cuda" else 0


class _Part:
    """The games of one seed, for checkpoints: as on the CPU, so that either goes on where the other stopped."""

    def __init__(self, whole: SmaxOnCard, index: int) -> None:
        self.whole, self.host, self.envs = whole, whole.hosts[index], whole.envs_of(index)
        self.index = index
        self.spec = self.host.spec

    def state_dict(self) -> dict[str, Array]:
        """See :class:`VecEnv`; waits for the card."""
        state = {name: value[self.envs].to("cpu", copy=True).numpy() for name, value in self.whole.state.items()}
        return self.host.state_dict() | state

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """See :class:`VecEnv`."""
        self.host.load_state_dict(state)
        for name, value in self.whole.state.items():
            value[self.envs] = torch.from_numpy(state[name]).to(value.device)
        self.whole.seeds[self.index] = int(state["seed"].view(np.int64)[0])

    def close(self) -> None:
        """Nothing to release."""
