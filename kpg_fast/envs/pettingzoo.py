"""SMAX as a PettingZoo ``ParallelEnv``, so that other codebases can use the engine."""

from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from kpg_fast.envs import StepArrays, VecEnv, make
from kpg_fast.envs.smax.render import render_frame
from kpg_fast.envs.vec_env import Array
from kpg_fast.errors import UsageError


class SmaxParallelEnv(ParallelEnv):  # type: ignore[misc]
    """One SMAX game; agents are ``ally_0``, ``ally_1``, ... and, with ``self_play=True``, ``enemy_0``, ...

    An observation is a dictionary: ``observation`` float32 [O] and ``action_mask`` int8 [A] (1: available); with
    ``action_type="continuous"``, where nothing is masked, it is the array alone. All agents of a game end together;
    the dead stay, see zeros and can only stop. ``infos`` hold ``won`` at the end.

    Args:
        scenario: e.g. ``2s3z``; see :func:`kpg_fast.envs.make`.
        render_mode: ``rgb_array`` or None.
        options: SMAX options, e.g. ``flavour="jaxmarl"``.

    Raises:
        UsageError: an unknown scenario, option or ``render_mode``.
    """

    metadata = {"name": "smax_v0", "render_modes": ["rgb_array"], "render_fps": 8, "is_parallelizable": True}  # noqa: RUF012  (PettingZoo's own form)

    def __init__(self, scenario: str = "2s3z", render_mode: str | None = None, **options: Any) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UsageError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}")
        self.render_mode = render_mode
        self._scenario, self._options = scenario, options
        self._env = self._build(0)
        spec = self._env.spec
        allies = self._env.scenario.num_allies  # type: ignore[attr-defined]
        names = [f"ally_{i}" for i in range(allies)] + [f"enemy_{i}" for i in range(spec.num_agents - allies)]
        self.possible_agents = names
        self.agents: list[str] = []
        self._out = StepArrays.empty(spec)
        self._observation_space: spaces.Space[Any] = spaces.Box(-np.inf, np.inf, (spec.obs_size,), np.float32)
        self._action_space: spaces.Space[Any] = spaces.Box(0, 1, (spec.num_actions,), np.float32)
        if not spec.continuous:
            mask = spaces.Box(0, 1, (spec.num_actions,), np.int8)
            self._observation_space = spaces.Dict({"observation": self._observation_space, "action_mask": mask})
            self._action_space = spaces.Discrete(spec.num_actions)

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """The same for every agent."""
        return self._observation_space

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """The same for every agent; the seed of each is its own."""
        return self._action_space

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode; with a seed, that seed's first one."""
        if seed is not None:
            self._env = self._build(seed)
        self.agents = list(self.possible_agents)
        self._env.reset(self._out)
        return self._observations(), {name: {} for name in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        """Take the actions of all agents; see PettingZoo.

        Raises:
            UsageError: no game is under way, an agent's action is missing, or it is none.
        """
        self._env.step(self._joined(actions), self._out)
        out, names = self._out, self.agents
        over = bool(out.terminated[0] or out.truncated[0])
        observations = self._observations()
        rewards = {name: self._reward(name) for name in names}
        terminated = dict.fromkeys(names, bool(out.terminated[0]))
        truncated = dict.fromkeys(names, bool(out.truncated[0]))
        infos: dict[str, dict[str, Any]] = {name: {"won": bool(out.won[0])} if over else {} for name in names}
        if over:
            self.agents = []
        return observations, rewards, terminated, truncated, infos

    def render(self) -> Array | None:
        """The game as uint8 [512, 512, 3], or None unless ``render_mode`` is ``rgb_array``."""
        return render_frame(self._env) if self.render_mode == "rgb_array" else None  # type: ignore[arg-type]

    def state(self) -> Array:
        """The global state, float32 [S]."""
        state: Array = self._out.state[0].copy()
        return state

    def close(self) -> None:
        """Release the game."""
        self._env.close()

    def _build(self, seed: int) -> VecEnv:
        return make(f"smax/{self._scenario}", 1, seed, auto_reset=False, **self._options)

    def _joined(self, actions: dict[str, Any]) -> Array:
        """The actions of all agents as one array, as they were given."""
        if not self.agents:
            raise UsageError("no game is under way; reset first")
        if missing := [name for name in self.agents if name not in actions]:
            raise UsageError(f"no action of {', '.join(missing)}: all agents act at once")
        shape = self._action_space.shape
        for name in self.agents:
            if np.shape(actions[name]) != shape:
                raise UsageError(f"the action of {name} must have shape {shape}, got {np.shape(actions[name])}")
        return np.stack([np.asarray(actions[name]) for name in self.agents])[None]

    def _observations(self) -> dict[str, Any]:
        rows = {name: self._out.obs[0, i].copy() for i, name in enumerate(self.possible_agents)}
        if self._env.spec.continuous:
            return rows
        masks = self._out.avail_actions[0].astype(np.int8)
        return {n: {"observation": row, "action_mask": masks[i]} for i, (n, row) in enumerate(rows.items())}

    def _reward(self, name: str) -> float:
        if name.startswith("enemy"):
            return float(self._env.enemy_reward[0])  # type: ignore[attr-defined]
        return float(self._out.reward[0])
