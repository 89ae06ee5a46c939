"""From environment steps to minibatches: transitions for feed-forward agents, whole episodes for recurrent ones.

A transition is treated as an episode of one step, so that everything after the sample is written once. In a minibatch
agents come first, [N, R, ...], with R = T * B rows, row t * B + b step t of sample b: a batched product over agents
reads them in place.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kpg_fast.envs import EnvSpec, StepArrays
from kpg_fast.envs.vec_env import Array
from kpg_fast.networks.input_norm import InputNorm
from kpg_fast.networks.mlp import Buffers
from kpg_fast.off_policy.replay_buffer import Columns, Ring
from kpg_fast.off_policy.settings import OffPolicy
from kpg_fast.place import CPU, Place, Staged


@dataclass
class Batch:
    """A minibatch; I = O and what is appended to the actors' observation (last action, agent id)."""

    steps: int
    """T: 1 for transitions."""
    obs: Tensor  # [N, R, I]
    next_obs: Tensor  # [N, R, I]
    whole_obs: Tensor  # [N, R + B, I]: all T + 1 steps of episodes; as obs for transitions
    state: Tensor  # [R, S]
    next_state: Tensor  # [R, S]
    action: Tensor  # [N, R, A]: in [-1, 1], or one-hot
    reward: Tensor  # [R]
    terminated: Tensor  # [R], 0 or 1
    last: Tensor  # [R] bool: nothing is stored after this step
    weight: Tensor  # [R]: 1 / number of stored steps, 0 in the padding of shorter episodes
    avail: Tensor | None = None  # [N, R, A] bool, with discrete actions
    next_avail: Tensor | None = None


def step_columns(spec: EnvSpec) -> dict[str, tuple[int, ...]]:
    """What is stored of every step."""
    n, a = spec.num_agents, spec.num_actions
    columns: dict[str, tuple[int, ...]] = {"obs": (n, spec.obs_size), "state": (spec.state_size,)}
    if spec.continuous:
        return columns | {"action": (n, a), "reward": (), "terminated": ()}
    return columns | {"avail": (n, a), "action": (n,), "reward": (), "terminated": ()}


class Experience(ABC):
    """What transitions and episodes have in common: how samples become a minibatch."""

    ring: Ring
    staged: Tensor
    """The rows of the steps, or of the episodes, under way, on the host."""
    longest: int
    """Steps of the longest sample."""

    def __init__(self, spec: EnvSpec, settings: OffPolicy, dtype: torch.dtype, place: Place = CPU) -> None:
        self.spec, self.settings, self.place = spec, settings, place
        self.buffers = Buffers(dtype, place.device)
        self.state_norm = InputNorm(spec.state_size, device=place.device) if settings.state_norm else None
        self._sent = Staged(place.device) if place.hosted else None
        self.appended = (spec.num_actions if settings.last_action else 0) + (
            spec.num_agents if settings.agent_id else 0
        )

    def sample(self, generator: torch.Generator) -> Batch:
        """Draw a minibatch."""
        return self.batch(self.draw(generator))

    def draw(self, generator: torch.Generator) -> Tensor:
        """The places [B] of a minibatch's samples."""
        return self.ring.draw(self.settings.batch_size, generator)

    @abstractmethod
    def batch(self, index: Tensor) -> Batch:
        """The minibatch of the samples at these places; on a card of :attr:`longest` steps, else of those there are."""

    @abstractmethod
    def steps_of(self, index: Tensor) -> int:
        """Steps of the longest of the samples at these places, given on the host."""

    def _store(self, envs: NDArray[np.intp] | None) -> None:
        """Add the staged rows of ``envs``, or all."""
        if self._sent is not None:
            rows = np.arange(len(self.staged)) if envs is None else envs
            self.ring.add(self._sent.send({"rows": self.staged.numpy()}, rows)["rows"])
        else:
            self.ring.add(self.staged if envs is None else self.staged[torch.from_numpy(envs)])

    def _batch(self, now: Mapping[str, Tensor], after: Mapping[str, Tensor], stored: Tensor) -> Batch:
        """Build a minibatch from fields [T, B, ...] of every step and of the step after; ``stored`` bool [T, B]."""
        action = self._actions(now["action"])
        weight = stored.to(self.buffers.dtype)
        last = stored.clone()
        last[:-1] &= ~stored[1:]
        obs, next_obs, whole = self._observations(now["obs"], after["obs"], action)
        flat = self._flat
        state, next_state = flat("state", now["state"]), flat("next_state", after["state"])
        if self.state_norm:
            self.state_norm.update(state[None], stored.flatten()[None])
            for x in (state, next_state):
                self.state_norm(x[None], out=x[None])
        return Batch(
            steps=len(stored),
            obs=obs,
            next_obs=next_obs,
            whole_obs=whole,
            state=state,
            next_state=next_state,
            action=action.flatten(1, 2),
            reward=flat("reward", now["reward"]),
            terminated=flat("terminated", now["terminated"]),
            last=last.flatten(),
            weight=(weight / weight.sum()).flatten(),
            avail=self._available(now.get("avail")),
            next_avail=self._available(after.get("avail")),
        )

    def _more_tensors(self) -> dict[str, Tensor]:
        if self.state_norm is None:
            return {}
        return {f"state_norm/{name}": value for name, value in self.state_norm.tensors().items()}

    def _flat(self, name: str, field: Tensor) -> Tensor:
        """[T, B, ...] -> [R, ...] in the learner's type."""
        copy = self.buffers(name, *field.shape).copy_(field)
        return copy.flatten(0, 1)

    def _actions(self, action: Tensor) -> Tensor:
        """[T, B, N, A] (or indices [T, B, N]) -> [N, T, B, A] in [-1, 1] or one-hot."""
        t, b, n = action.shape[:3]
        out = self.buffers("action", n, t, b, self.spec.num_actions)
        if self.spec.continuous:
            return out.copy_(action.permute(2, 0, 1, 3))
        return out.zero_().scatter_(3, action.permute(2, 0, 1)[..., None].long(), 1)

    def _available(self, avail: Tensor | None) -> Tensor | None:
        if avail is None:
            return None
        return (avail > 0.5).permute(2, 0, 1, 3).flatten(1, 2)

    def _observations(self, now: Tensor, after: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Actors' inputs of every step, of the step after, and of all steps, from obs [T, B, N, O]."""
        (t, b, n, _), i = now.shape, self.spec.obs_size + self.appended
        if not self.settings.recurrent:
            rows = [self.buffers(name, n, t, b, i) for name in ("obs", "next_obs")]
            for into, obs in zip(rows, (now, after), strict=True):
                self._fill(into, obs, None)
            return rows[0].flatten(1, 2), rows[1].flatten(1, 2), rows[0].flatten(1, 2)
        whole = self.buffers("obs", n, t + 1, b, i)
        self._fill(whole[:, :-1], now, None)
        self._fill(whole[:, -1:], after[-1:], None)
        if self.settings.last_action:
            part = whole[..., self.spec.obs_size :][..., : self.spec.num_actions]
            part[:, 0] = 0
            part[:, 1:] = action
        rows_of_all = whole.flatten(1, 2)
        return rows_of_all[:, : t * b], rows_of_all[:, b:], rows_of_all

    def _fill(self, into: Tensor, obs: Tensor, last_action: Tensor | None) -> None:
        """Write observations [T, B, N, O] and what is appended to them to actors' inputs [N, T, B, I]."""
        into[..., : self.spec.obs_size] = obs.permute(2, 0, 1, 3)
        if last_action is not None:
            into[..., self.spec.obs_size :][..., : self.spec.num_actions] = last_action
        if self.settings.agent_id:
            n = self.spec.num_agents
            into[..., -n:] = torch.eye(n, device=into.device)[:, None, None]

    def actor_inputs(self, obs: Tensor, last_action: Tensor | None) -> Tensor:
        """Inputs [N, E, I] for one step of acting from obs [E, N, O] and the last actions [N, E, A]."""
        e, n, o = obs.shape
        into = torch.empty(n, 1, e, o + self.appended, dtype=self.buffers.dtype)
        shown = None
        if self.settings.last_action:
            shown = torch.zeros(n, 1, e, self.spec.num_actions) if last_action is None else last_action[:, None]
        self._fill(into, obs[None], shown)
        return into[:, 0]


class Transitions(Experience):
    """Single steps: what was seen, done and paid, and what was seen next."""

    def __init__(
        self,
        spec: EnvSpec,
        settings: OffPolicy,
        dtype: torch.dtype,
        path: Path | None = None,
        spare: int = 0,
        place: Place = CPU,
    ) -> None:
        super().__init__(spec, settings, dtype, place)
        columns = step_columns(spec)
        seen: list[str] = [name for name in ("obs", "state", "avail") if name in columns]
        self.columns = Columns(columns | {f"next_{name}": columns[name] for name in seen})
        self.ring = Ring(settings.buffer_size, self.columns.width, path, spare, place.device)
        self.longest = 1
        self.staged = torch.zeros(spec.num_envs, self.columns.width)
        self.seen = seen
        self.fields = {name: view.numpy() for name, view in self.columns.views(self.staged).items()}
        self._rows = torch.empty(settings.batch_size, self.columns.width, device=place.device)

    def see(self, out: StepArrays, envs: Array | slice = slice(None)) -> None:
        """Remember what the next actions are chosen from."""
        for name, value in zip(("obs", "state", "avail"), (out.obs, out.state, out.avail_actions), strict=True):
            if name in self.fields:
                self.fields[name][envs] = value[envs]

    def record(self, action: Array, out: StepArrays, envs: Array | slice = slice(None)) -> int:
        """Store a step of ``envs``; ``action`` [E, N, A] in [-1, 1] or indices [E, N]. Returns how many samples."""
        fields, (over, valid) = self.fields, (np.zeros(len(out.valid), np.bool_) for _ in range(2))
        over[envs], valid[envs] = (out.terminated | out.truncated)[envs], out.valid[envs]
        for name, value in (("action", action), ("reward", out.reward), ("terminated", out.terminated)):
            fields[name][envs] = value[envs]
        fields["next_obs"][envs], fields["next_state"][envs] = out.obs[envs], out.state[envs]
        fields["next_obs"][over], fields["next_state"][over] = out.last_obs[over], out.last_state[over]
        if "avail" in fields:
            # what would be available after the last step is not told: what was before it stands in
            known = np.where(over[:, None, None], fields["avail"], out.avail_actions)
            fields["next_avail"][envs] = known[envs]
        self._store(None if valid.all() else np.flatnonzero(valid))
        self.see(out, envs)
        return int(valid.sum())

    def steps_of(self, index: Tensor) -> int:
        """See :class:`Experience`."""
        return 1

    def batch(self, index: Tensor) -> Batch:
        """See :class:`Experience`."""
        rows = self.ring.take(index, self._rows)
        views = {name: view[None] for name, view in self.columns.views(rows).items()}
        after: dict[str, Tensor] = {name: views[f"next_{name}"] for name in self.seen}
        return self._batch(views, after, torch.ones(1, len(rows), dtype=torch.bool, device=rows.device))

    def tensors(self) -> dict[str, Tensor]:
        """What an exact resume needs."""
        return self.ring.tensors() | {"replay/staged": self.staged} | self._more_tensors()

    def restore(self, tensors: Mapping[str, Tensor], written: int) -> None:
        """Continue where :meth:`tensors` was taken."""
        self.ring.restore(tensors, written)
        self.staged.copy_(tensors["replay/staged"])


class Episodes(Experience):
    """Whole episodes, padded to the longest there can be; a row ends with the episode's length."""

    def __init__(
        self,
        spec: EnvSpec,
        settings: OffPolicy,
        dtype: torch.dtype,
        path: Path | None = None,
        spare: int = 0,
        place: Place = CPU,
    ) -> None:
        super().__init__(spec, settings, dtype, place)
        self.columns = Columns(step_columns(spec))
        self.longest = spec.max_episode_steps
        width = (self.longest + 1) * self.columns.width + 1
        self.ring = Ring(settings.buffer_size, width, path, spare, place.device)
        self._lengths = np.zeros(self.ring.total if place.hosted else 0, np.int64)  # of the episodes in the ring
        self.staged = torch.zeros(spec.num_envs, width)
        steps = self.staged[:, :-1].view(spec.num_envs, self.longest + 1, self.columns.width)
        self.fields = {name: view.numpy() for name, view in self.columns.views(steps).items()}
        self.step = np.zeros(spec.num_envs, np.int64)
        self.broken = np.zeros(spec.num_envs, np.bool_)
        self._envs = np.arange(spec.num_envs)

    def see(self, out: StepArrays, envs: Array | slice = slice(None)) -> None:
        """Remember what the next actions are chosen from."""
        self._write({"obs": out.obs, "state": out.state, "avail": out.avail_actions}, self._envs[envs])

    def record(self, action: Array, out: StepArrays, envs: Array | slice = slice(None)) -> int:
        """Store a step of ``envs``; ``action`` [E, N, A] in [-1, 1] or indices [E, N]. Returns how many samples."""
        envs = self._envs[envs]
        self._write({"action": action, "reward": out.reward, "terminated": out.terminated}, envs)
        before = {name: self.fields[name][self._envs, self.step] for name in ("avail",) if name in self.fields}
        self.step[envs] += 1
        self.broken[envs] |= ~out.valid[envs]
        over = envs[(out.terminated | out.truncated)[envs]]
        # what would be available after the last step is not told: what was before it stands in
        self._write({"obs": out.last_obs, "state": out.last_state, **before}, over)
        self.staged[:, -1] = torch.from_numpy(self.step)
        sound = over[~self.broken[over]]
        if len(sound):
            if self.place.hosted:
                self._lengths[(self.ring.written + np.arange(len(sound))) % self.ring.total] = self.step[sound]
            self._store(sound)
        self.step[over], self.broken[over] = 0, False
        self.staged[torch.from_numpy(over)] = 0
        self.see(out, envs)
        return len(sound)

    def _write(self, values: Mapping[str, Array], envs: Array) -> None:
        for name, value in values.items():
            if name in self.fields:
                self.fields[name][envs, self.step[envs]] = value[envs]

    def steps_of(self, index: Tensor) -> int:
        """See :class:`Experience`."""
        return int(self._lengths[index.numpy()].max())

    def batch(self, index: Tensor) -> Batch:
        """See :class:`Experience`."""
        rows = self.ring.take(index)
        lengths = rows[:, -1].long()
        steps = self.longest if self.place.hosted else int(lengths.max())
        kept = rows[:, : (steps + 1) * self.columns.width].view(len(rows), steps + 1, self.columns.width)
        by_time = self.columns.views(kept.transpose(0, 1))
        now = {name: view[:-1] for name, view in by_time.items()}
        after = {name: view[1:] for name, view in by_time.items()}
        return self._batch(now, after, torch.arange(steps, device=rows.device)[:, None] < lengths)

    def tensors(self) -> dict[str, Tensor]:
        """What an exact resume needs."""
        mine = {"staged": self.staged, "step": torch.from_numpy(self.step), "broken": torch.from_numpy(self.broken)}
        replay = {f"replay/{name}": value for name, value in mine.items()}
        return self.ring.tensors() | replay | self._more_tensors()

    def restore(self, tensors: Mapping[str, Tensor], written: int) -> None:
        """Continue where :meth:`tensors` was taken."""
        self.ring.restore(tensors, written)
        self.staged.copy_(tensors["replay/staged"])
        self.step[:], self.broken[:] = tensors["replay/step"].numpy(), tensors["replay/broken"].numpy()
        if self.place.hosted:
            self._lengths[: len(self.ring)] = tensors["replay/rows"][:, -1].cpu().numpy()
