"""SMAX as a :class:`~kpg_fast.envs.VecEnv`."""

from dataclasses import dataclass, fields
from typing import Literal, get_args, get_origin

import numba
import numpy as np
import torch

from kpg_fast.envs.smax import cpu, layout, threads, threefry
from kpg_fast.envs.smax.layout import FIRST_ATTACK, FLOAT_ROWS, INT_ROWS, OWN_FEATURES, UNIT_FEATURES
from kpg_fast.envs.smax.scenario import Scenario
from kpg_fast.envs.vec_env import Array, EnvSpec, StepArrays
from kpg_fast.errors import UsageError, unknown_name

_MOST = 2**31 - 1  # settings are int32


@dataclass(frozen=True)
class SmaxOptions:
    """How the game is played; ``docs/smax.md`` has the table of flavours.

    flavour: ``default`` (an episode is cut, not ended, after ``max_steps``) or ``jaxmarl`` (after ``max_steps + 1``
        steps it ends like a lost one).
    observation: ``unit_list`` or ``conic``. action_type: ``discrete`` or ``continuous``.
    attack_mode: the scripted enemy takes the ``closest`` or a ``random`` ally in range.
    enemy_shoots, see_enemy_actions, walls_cause_death: as in JaxMARL.
    self_play: both teams are agents, the enemies after the allies; ``use_self_play_reward``: +-1 for the end alone.
    auto_reset: begin the next episode at once; otherwise a game stays as it ended until ``reset``.
    max_steps: the time limit. first_env: index of the first environment, so that parts of a batch play its episodes.
    reset_random: ``philox``, or ``threefry``, which starts episodes where JaxMARL starts them (slow): the first of
        environment e as ``reset(split(PRNGKey(seed), E)[e])``, number c of it from ``split(that key, c + 1)[c]``.
    threads: how many play; 0 means as many as torch uses.
    """

    flavour: Literal["default", "jaxmarl"] = "default"
    observation: Literal["unit_list", "conic"] = "unit_list"
    action_type: Literal["discrete", "continuous"] = "discrete"
    attack_mode: Literal["closest", "random"] = "closest"
    enemy_shoots: bool = True
    see_enemy_actions: bool = True
    walls_cause_death: bool = True
    self_play: bool = False
    use_self_play_reward: bool = False
    auto_reset: bool = True
    max_steps: int = 100
    first_env: int = 0
    reset_random: Literal["philox", "threefry"] = "philox"
    threads: int = 0

    def __post_init__(self) -> None:
        least = {"max_steps": 1, "first_env": 0, "threads": 0}
        for option in fields(self):
            name, value = option.name, getattr(self, option.name)
            if get_origin(option.type) is Literal:
                allowed, right = " or ".join(get_args(option.type)), value in get_args(option.type)
            elif option.type is bool:
                allowed, right = "true or false", isinstance(value, bool)
            else:
                allowed = f"a whole number from {least[name]} to {_MOST}"
                right = type(value) is int and least[name] <= value <= _MOST
            if not right:
                raise UsageError(f"SMAX option {name} must be {allowed}, got {value!r}")
        if self.use_self_play_reward and not self.self_play:
            raise UsageError("SMAX option use_self_play_reward needs self_play=True")


# What `set_state` and `get_state` call things: name -> (rows, dtype), one row or the two of a vector.
_FLOATS = {
    "position": (layout.X, layout.Y),
    "health": (layout.HEALTH,),
    "cooldown": (layout.COOLDOWN,),
    "last_move": (layout.MOVE_X, layout.MOVE_Y),
    "goal": (layout.GOAL_X, layout.GOAL_Y),
}
_INTS = {"unit_type": layout.TYPE, "alive": layout.ALIVE, "last_attack": layout.ATTACK, "last_slot": layout.SLOT}


class SmaxEnv:
    """A batch of SMAX games on the CPU.

    Agents are the allies; with ``self_play`` the enemies follow them, ``reward`` and ``won`` stay the allies' and
    :attr:`enemy_reward` [E] holds the other team's reward of the last step. Where the teams differ in size the
    smaller action set is padded with actions that are never available.
    """

    def __init__(self, scenario: Scenario, num_envs: int, seed: int, options: SmaxOptions) -> None:
        if num_envs < 1:
            raise UsageError(f"num_envs must be at least 1, got {num_envs}")
        self.scenario, self.options = scenario, options
        self.spec = _spec(scenario, num_envs, options)
        self.enemy_reward = np.zeros(num_envs, np.float32)
        threads.launch()
        self._threads = min(options.threads or torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        self._seed = np.uint64(seed % 2**64)
        self._settings = _settings(scenario, options)
        self._kinds = np.array(scenario.ally_types + scenario.enemy_types, np.int32)
        units = layout.padded(scenario.num_units)
        self._floats = np.zeros((num_envs, FLOAT_ROWS, units), np.float32)
        self._floats[:, [layout.NEXT_X, layout.NEXT_Y]] = layout.FAR
        self._floats[:, layout.WAIT] = layout.DT
        self._ints = np.zeros((num_envs, INT_ROWS, units), np.int32)
        self._counters = np.zeros((num_envs, layout.COUNTERS), np.int64)
        self._games = (self._floats, self._ints, self._counters)
        shares = min(self._threads, num_envs)
        features = np.zeros((shares, units + 1, layout.FEATURE_COLUMNS), np.float32)
        self._scratch = (features, np.zeros((shares, layout.VIEW_ROWS, units), np.float32))
        self._no_actions = np.zeros((num_envs, 0), np.int32)
        self._no_vectors = np.zeros((num_envs, 0, layout.CONTINUOUS_ACTIONS), np.float32)
        self._expected = {name: (a.shape, a.dtype) for name, a in vars(StepArrays.empty(self.spec)).items()}
        self._no_start = (np.zeros((num_envs, 0, 2), np.float32), np.zeros((num_envs, 0), np.int32))
        self._not_given = (np.zeros((num_envs, 0, 2), np.float32), np.zeros((num_envs, 0, 0), np.float32))

    def reset(self, out: StepArrays) -> None:
        """Start a new episode everywhere; writes obs, state, avail_actions, alive."""
        self._present(np.ones(self.spec.num_envs, np.bool_), out)

    def observe(self, out: StepArrays) -> None:
        """Write obs, state, avail_actions and alive of the current state, as after :meth:`set_state`."""
        self._present(np.zeros(self.spec.num_envs, np.bool_), out)

    def step(self, action: Array, out: StepArrays) -> None:
        """Take one step: ``action`` is int32 [E, N] (discrete) or float32 [E, N, 4] in [0, 1] (continuous).

        Actions that are not available are allowed, with what JaxMARL's rules make of them.

        Raises:
            UsageError: a number that is no action, one that is not finite, or another shape.
        """
        self._check_action(action)
        self._step(action, out, self._not_given)

    def step_async(self, action: Array, out: StepArrays) -> None:
        """Step at once: the games are cheaper than handing them to a thread."""
        self.step(action, out)

    def step_wait(self) -> None:
        """Nothing to wait for."""

    def step_given(
        self,
        action: Array,
        out: StepArrays,
        u_target: Array,
        u_attack: Array,
        cd_dev: Array,
        u_ally: Array | None = None,
    ) -> None:
        """One step with all its random numbers given, for comparisons with another engine.

        Args:
            action: as for :meth:`step`; numbers above the last action are allowed, as in JaxMARL.
            out: as for :meth:`step`.
            u_target: [E, n_enemies] in [0, 1); which visible ally a scripted enemy follows.
            u_attack: [E, n_enemies] in [0, 1); which ally in range it shoots at (attack_mode random).
            cd_dev: [E, 8, n_units] seconds in [-1/16, 2/16): what a shot in that tick adds to the unit's cooldown.
            u_ally: [E, N, 2] in [0, 1); the two draws of a continuous action: it moves if the first is below
                ``action[1]``, and a shot takes a new target if the second is below ``action[0]``.
        """
        e, units = self.spec.num_envs, self.scenario.num_units
        draws = np.zeros((e, units, 2), np.float32)
        draws[:, self.scenario.num_allies :, 0] = u_target
        draws[:, self.scenario.num_allies :, 1] = u_attack
        if u_ally is not None:
            draws[:, : self.spec.num_agents] = u_ally
        deviations = np.ascontiguousarray(cd_dev, np.float32)
        if deviations.shape != (e, layout.TICKS, units):
            raise UsageError(f"cd_dev must have shape {(e, layout.TICKS, units)}, got {deviations.shape}")
        self._check_shape(action)
        self._step(action, out, (draws, deviations))

    def get_state(self) -> dict[str, Array]:
        """Named copies of the state; the names and shapes that :meth:`set_state` takes."""
        units = self.scenario.num_units
        state: dict[str, Array] = {}
        for name, rows in _FLOATS.items():
            value = self._floats[:, rows, :units]
            state[name] = np.moveaxis(value, 1, 2).copy() if len(rows) == 2 else value[:, 0].copy()
        for name, row in _INTS.items():
            state[name] = self._ints[:, row, :units].copy()
        state["step"] = self._counters[:, layout.STEP].copy()
        return state

    def set_state(self, **named: Array) -> None:
        """Overwrite parts of the state; call :meth:`observe` to see the result.

        Args:
            named: any of position, last_move, goal float32 [E, n_units, 2]; health, cooldown float32 [E, n_units];
                unit_type, alive, last_attack, last_slot int32 [E, n_units]; step int64 [E]. ``goal`` and
                ``last_slot`` are the scripted enemies' memory.

        Raises:
            UsageError: an unknown name or another shape.
        """
        known = self.get_state()
        for name, value in named.items():
            if name not in known:
                raise unknown_name("part of the SMAX state", name, known)
            if np.shape(value) != known[name].shape:
                raise UsageError(f"{name} must have shape {known[name].shape}, got {np.shape(value)}")
        units = self.scenario.num_units
        for name, value in named.items():
            if name == "step":
                self._counters[:, layout.STEP] = value
            elif name in _INTS:
                self._ints[:, _INTS[name], :units] = value
            elif len(_FLOATS[name]) == 2:
                self._floats[:, _FLOATS[name], :units] = np.moveaxis(value, 2, 1)
            else:
                self._floats[:, _FLOATS[name][0], :units] = value
        self._floats[:, layout.RADIUS] = layout.UNIT_RADIUS[self._ints[:, layout.TYPE]]
        self._floats[:, layout.PACE] = layout.SPEED[self._ints[:, layout.TYPE]] * layout.DT

    def state_dict(self) -> dict[str, Array]:
        """Everything an exact resume needs, as plain arrays."""
        return {
            "floats": self._floats.copy(),
            "ints": self._ints.copy(),
            "counters": self._counters.copy(),
            "seed": np.array([self._seed], np.uint64),
            "settings": self._settings.copy(),
            "kinds": self._kinds.copy(),
        }

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Continue exactly where ``state_dict`` was taken; raises ``UsageError`` for another game."""
        own = self.state_dict()
        if state.keys() != own.keys() or any(np.shape(state[name]) != own[name].shape for name in own):
            raise UsageError(f"the saved SMAX state does not fit: {_shapes(state)}, here {_shapes(own)}")
        if not np.array_equal(state["settings"], self._settings) or not np.array_equal(state["kinds"], self._kinds):
            raise UsageError(f"the saved SMAX state is of another scenario or other options than {self.spec.name}")
        self._floats[...] = state["floats"]
        self._ints[...] = state["ints"]
        self._counters[...] = state["counters"]
        self._seed = np.uint64(state["seed"][0])

    def close(self) -> None:
        """Nothing to release."""

    def _present(self, restart: Array, out: StepArrays) -> None:
        self._check(out)
        start = self._jax_start() if self.options.reset_random == "threefry" else self._no_start
        numba.set_num_threads(self._threads)
        cpu.present(
            self._games, self._settings, self._seed, self._kinds, restart, start, self._scratch, _next_arrays(out)
        )

    def _step(self, action: Array, out: StepArrays, given: tuple[Array, Array]) -> None:
        self._check(out)
        if self.spec.continuous:
            numbers, vectors = self._no_actions, np.ascontiguousarray(action, np.float32)
        else:
            numbers, vectors = np.ascontiguousarray(action, np.int32), self._no_vectors
        numba.set_num_threads(self._threads)
        cpu.step(
            self._games,
            self._settings,
            self._seed,
            self._kinds,
            (numbers, vectors),
            given,
            self._scratch,
            _next_arrays(out),
            (out.reward, self.enemy_reward, out.terminated, out.truncated, out.won, out.valid),
            (out.last_obs, out.last_state),
        )
        if self._settings[layout.KEEP_ENDED] and self.options.auto_reset:
            self._present(out.terminated | out.truncated, out)

    def _jax_start(self) -> tuple[Array, Array]:
        """Where JaxMARL would start the next episode of every environment."""
        first = self.options.first_env
        keys = threefry.split(threefry.prng_key(int(self._seed)), first + self.spec.num_envs)[first:]
        episode = self._counters[:, layout.EPISODE]
        later = threefry.split(keys, int(episode.max()) + 1)[np.arange(len(keys)), episode]
        keys = np.where(episode[:, None] == 0, keys, later)
        begin = threefry.two_team_start_positions if self.options.self_play else threefry.start_positions
        return begin(keys, self.scenario)

    def _check_shape(self, action: Array) -> None:
        shape: tuple[int, ...] = (self.spec.num_envs, self.spec.num_agents)
        if self.spec.continuous:
            shape += (layout.CONTINUOUS_ACTIONS,)
        if np.shape(action) != shape:
            raise UsageError(f"action must have shape {shape}, got {np.shape(action)}")

    def _check_action(self, action: Array) -> None:
        """Refuse what is no action, before anything is changed."""
        self._check_shape(action)
        given, last = np.asarray(action), self.spec.num_actions - 1
        if given.dtype.kind not in ("iuf" if self.spec.continuous else "iu"):
            numbers = "numbers" if self.spec.continuous else "whole numbers"
            raise UsageError(f"actions must be {numbers}, got {given.dtype}")
        if self.spec.continuous:
            right, rule = np.abs(given) <= np.finfo(np.float32).max, "finite in float32"
        elif given.min() >= 0 and given.max() <= last:
            return
        else:
            right, rule = (given >= 0) & (given <= last), f"0 to {last}"
        if not right.all():
            env, agent, *place = np.argwhere(~right)[0]
            action_name, number = " ".join(["action", *map(str, place)]), self.options.first_env + env
            value = given[env, agent, *place]
            raise UsageError(f"{action_name} of agent {agent} in environment {number} is {value}; it must be {rule}")

    def _check(self, out: StepArrays) -> None:
        """Refuse what the compiled code would misread (it would also compile once more for another layout)."""
        for name, (shape, dtype) in self._expected.items():
            array = getattr(out, name)
            if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
                raise UsageError(
                    f"out.{name} must be a contiguous {dtype} array of shape {shape}, got {array.dtype} {array.shape}"
                )


def _shapes(state: dict[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(value) for name, value in state.items()}


def _next_arrays(out: StepArrays) -> tuple[Array, Array, Array, Array]:
    return out.obs, out.state, out.avail_actions, out.alive


def _spec(scenario: Scenario, num_envs: int, options: SmaxOptions) -> EnvSpec:
    units, agents = scenario.num_units, scenario.num_units if options.self_play else scenario.num_allies
    continuous = options.action_type == "continuous"
    slots = max(scenario.num_enemies, scenario.num_allies) if options.self_play else scenario.num_enemies
    num_actions = layout.CONTINUOUS_ACTIONS if continuous else FIRST_ATTACK + slots
    seen = layout.SECTORS * layout.SECTOR_SLOTS if options.observation == "conic" else units - 1
    bounds = np.ones((agents, num_actions), np.float32)
    return EnvSpec(
        name=f"smax/{scenario.name}",
        num_envs=num_envs,
        num_agents=agents,
        obs_size=UNIT_FEATURES * seen + OWN_FEATURES,
        state_size=layout.STATE_FEATURES * units,
        num_actions=num_actions,
        max_episode_steps=options.max_steps + (options.flavour == "jaxmarl"),
        action_low=0 * bounds if continuous else None,
        action_high=bounds if continuous else None,
        facts={"engine": "kpg_fast SMAX, rules of JaxMARL 0.2.0", "flavour": options.flavour, "map": scenario.name},
    )


def _settings(scenario: Scenario, options: SmaxOptions) -> Array:
    settings = np.zeros(layout.SETTINGS, np.int32)
    settings[layout.NUM_ALLIES] = scenario.num_allies
    settings[layout.NUM_ENEMIES] = scenario.num_enemies
    settings[layout.NUM_AGENTS] = scenario.num_units if options.self_play else scenario.num_allies
    settings[layout.MAX_STEPS] = options.max_steps
    settings[layout.FIRST_ENV] = options.first_env
    settings[layout.RANDOM_TARGET] = options.attack_mode == "random"
    settings[layout.ENEMY_SHOOTS] = options.enemy_shoots
    settings[layout.SEE_ENEMY_ACTIONS] = options.see_enemy_actions
    settings[layout.WALLS_KILL] = options.walls_cause_death
    settings[layout.SELF_PLAY] = options.self_play
    settings[layout.SELF_PLAY_REWARD] = options.use_self_play_reward
    settings[layout.LIMIT_IS_TERMINAL] = options.flavour == "jaxmarl"
    settings[layout.CONIC] = options.observation == "conic"
    settings[layout.CONTINUOUS] = options.action_type == "continuous"
    settings[layout.RANDOM_POSITIONS] = scenario.random_positions
    settings[layout.RANDOM_TYPES] = scenario.random_types
    types = range(layout.NUM_TYPES) if scenario.random_types else scenario.ally_types + scenario.enemy_types
    settings[layout.WIDEST] = round(16 * max(layout.UNIT_RADIUS[list(types)]))
    settings[layout.KEEP_ENDED] = options.reset_random == "threefry" or not options.auto_reset
    return settings
