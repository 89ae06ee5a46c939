"""MAMuJoCo as a `VecEnv`: physics in MuJoCo's batched stepper, everything around it in compiled loops."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from kpg_fast.envs.mamujoco import kernels, requirements
from kpg_fast.envs.mamujoco.build import Built, build
from kpg_fast.envs.mamujoco.options import Options
from kpg_fast.envs.mamujoco.tasks import start_state
from kpg_fast.envs.vec_env import Array, StepArrays
from kpg_fast.errors import UsageError

log = logging.getLogger(__name__)
_STARTS = 0x6D616D756A6F636F
"""Second half of the key of the random numbers that start episodes ("mamujoco")."""


class MamujocoEnv:
    """E environments of one MAMuJoCo task; see `kpg_fast.envs.vec_env.VecEnv` for the interface.

    Actions [E, N, A] are Gymnasium's, within ``spec.action_low`` and ``action_high`` [N, A]. MuJoCo clips what lies
    outside; the cost of an action does not. Agents with fewer than A joints have bounds 0 in the places left over,
    which are not read. Shorter observations end in zeros. ``won`` is always false.

    A simulation that MuJoCo gives up on (NaN, far too large, or it raises), or whose reward float32 cannot hold, ends
    its episode: that step has reward 0, is ``truncated`` and not ``valid``, has zeros in ``last_obs`` and
    ``last_state``, and is counted in `faults`.

    Args:
        name: ``scenario-agent_conf``.
        num_envs: E.
        seed: with the index of an environment and of its episode it determines where the episode starts.
        options: see `Options`.

    Raises:
        UsageError: unknown name, ``num_envs < 1``, or a package is missing.
    """

    def __init__(self, name: str, num_envs: int, seed: int, options: Options) -> None:
        if num_envs < 1:
            raise UsageError(f"num_envs must be at least 1, got {num_envs}")
        built: Built = build(name, num_envs, options)
        self.spec = built.spec
        self._scenario, self._task, self._model = built.scenario, built.task, built.model
        self._layout, self._plan, self._terms = built.layout, built.plan, built.terms
        self._actuators, self._physics = built.actuators, built.physics
        self._fault_warnings = built.fault_warnings
        self._stream = np.array([seed % 2**64, options.first_env], np.uint64)

        self._features = np.zeros((num_envs, self._layout.size))
        self._features[:, self._layout.one] = 1.0
        self._last_features = self._features.copy()
        self._position = np.zeros(num_envs)
        self._reward = np.zeros(num_envs)
        self._elapsed = np.zeros(num_envs, np.int64)
        self._episode = np.full(num_envs, -1, np.int64)
        self._faulty = np.zeros(num_envs, np.bool_)
        self._faults = np.zeros(1, np.int64)
        self._every = np.arange(num_envs, dtype=np.int32)
        self._copies = self._feature_copies()
        self._worker: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None
        self._closed = False

    @property
    def faults(self) -> int:
        """Episodes so far that a fault of the simulation ended."""
        return int(self._faults[0])

    def reset(self, out: StepArrays) -> None:
        """Start a new episode everywhere; see `VecEnv.reset`."""
        self._check_ready(started=True)
        self._begin(self._every, out)
        self._fill_constants(out)

    def step(self, action: Array, out: StepArrays) -> None:
        """Take one step; see `VecEnv.step`.

        Raises:
            UsageError: an action is not finite or has the wrong shape, or there was no reset.
        """
        self._control(action)
        self._advance(out)

    def step_async(self, action: Array, out: StepArrays) -> None:
        """Begin a step on another thread. ``action`` may be changed at once, ``out`` is to be left alone."""
        self._control(action)
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="mamujoco")
        self._pending = self._worker.submit(self._advance, out)

    def step_wait(self) -> None:
        """Wait for the step begun by :meth:`step_async`."""
        if self._pending is None:
            raise UsageError("step_wait without step_async")
        pending, self._pending = self._pending, None
        pending.result()

    def set_state(self, qpos: Array, qvel: Array, out: StepArrays) -> None:
        """Start an episode everywhere from given states: qpos [E, nq], qvel [E, nv]. The hook of parity tests."""
        self._check_ready(started=True)
        for name, given, shape in (("qpos", qpos, self._physics.qpos.shape), ("qvel", qvel, self._physics.qvel.shape)):
            if np.shape(given) != shape:
                raise UsageError(f"{name} must have shape {shape}, got {np.shape(given)}")
        self._episode += 1
        self._place(self._every, qpos, qvel)
        kernels.observe(self._features, self._plan, self._every, out.obs, out.state)
        self._fill_constants(out)

    def get_state(self) -> tuple[Array, Array]:
        """Positions qpos [E, nq] and velocities qvel [E, nv] of the simulations."""
        self._check_ready()
        return self._physics.qpos.copy(), self._physics.qvel.copy()

    def observe(self, out: StepArrays) -> None:
        """Write what the next action is chosen from once more, e.g. after :meth:`load_state_dict`."""
        self._check_ready()
        kernels.observe(self._features, self._plan, self._every, out.obs, out.state)
        self._fill_constants(out)

    def exact_observation(self, last: bool = False) -> tuple[Array, Array]:
        """Observations [E, N, O] and state [E, S] in float64, before they are rounded to float32.

        Args:
            last: those that ended an environment's last episode, instead of the present ones.
        """
        spec = self.spec
        obs = np.zeros((spec.num_envs, spec.num_agents, spec.obs_size))
        state = np.zeros((spec.num_envs, spec.state_size))
        kernels.observe(self._last_features if last else self._features, self._plan, self._every, obs, state)
        return obs, state

    def exact_reward(self) -> Array:
        """Rewards [E] of the last step in float64."""
        return self._reward.copy()

    def state_dict(self) -> dict[str, Array]:
        """Everything an exact resume needs; another version of MuJoCo cannot continue it."""
        self._check_ready()
        return {name: array.copy() for name, array in self._resumable().items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Continue exactly where ``state_dict`` was taken; see `VecEnv.load_state_dict`."""
        self._check_ready(started=True)
        arrays = self._resumable()
        if state.keys() != arrays.keys():
            raise UsageError(f"not a state of {self.spec.name}: it has {sorted(state)}, not {sorted(arrays)}")
        for name, array in arrays.items():
            if np.shape(state[name]) != array.shape:
                raise UsageError(f"{name} of {self.spec.name} has shape {array.shape}, not {np.shape(state[name])}")
        if not np.array_equal(state["mujoco_version"], arrays["mujoco_version"]):
            then, now = (".".join(str(part) for part in s["mujoco_version"]) for s in (state, arrays))
            raise UsageError(f"this state is of MuJoCo {then} and cannot be continued exactly with {now}")
        self._physics.reset(self._every)
        for name, array in arrays.items():
            array[...] = state[name]

    def close(self) -> None:
        """Release threads and memory; safe to call twice."""
        if self._closed:
            return
        if self._worker is not None:
            self._worker.shutdown()
        self._closed = True
        self._copies = []
        self._physics.close()

    def _resumable(self) -> dict[str, Array]:
        version = [int(part) for part in requirements.mujoco().__version__.split(".")[:3]]
        return {
            "rows": self._physics.rows,
            "features": self._features,
            "position": self._position,
            "elapsed": self._elapsed,
            "episode": self._episode,
            "faults": self._faults,
            "stream": self._stream,
            "mujoco_version": np.array(version, np.int64),
        }

    def _check_ready(self, started: bool = False) -> None:
        if self._closed:
            raise UsageError(f"{self.spec.name} is closed")
        if self._pending is not None:
            raise UsageError("a step is under way; call step_wait first")
        if not started and self._episode[0] < 0:
            raise UsageError("call reset first")

    def _feature_copies(self) -> list[tuple[Array, Array]]:
        """Pairs (part of the features, where the physics holds it)."""
        sources = {"qpos": self._physics.qpos, "qvel": self._physics.qvel, **self._physics.outputs}
        return [(self._features[:, self._layout[name]], source) for name, source in sources.items()]

    def _control(self, action: Array) -> None:
        self._check_ready()
        spec = self.spec
        shape = (spec.num_envs, spec.num_agents, spec.num_actions)
        if action.shape != shape:
            raise UsageError(f"actions must have shape {shape}, got {action.shape}")
        if not kernels.write_controls(action, self._actuators, self._physics.ctrl):
            env, agent, place = np.argwhere(~np.isfinite(action) & (self._actuators >= 0))[0]
            value = action[env, agent, place]
            number = int(self._stream[1]) + env
            raise UsageError(f"action {place} of agent {agent} in environment {number} is {value}; it must be finite")

    def _advance(self, out: StepArrays) -> None:
        self._faulty[:] = False
        self._faulty[self._physics.step(self._task.frame_skip)] = True
        for part, source in self._copies:
            part[...] = source
        self._derive(self._features)
        kernels.judge(self._features, self._physics.ctrl, self._terms, self._position, self._reward, out.terminated)
        self._elapsed += 1
        np.greater_equal(self._elapsed, self.spec.max_episode_steps, out=out.truncated)
        faults = kernels.find_faults(
            self._physics.warnings, self._fault_warnings, self._features, self._reward, self._faulty
        )
        if faults:
            self._report_faults(out)
        out.reward[...] = self._reward
        np.logical_not(self._faulty, out=out.valid)
        kernels.observe(self._features, self._plan, self._every, out.obs, out.state)
        self._fill_constants(out)
        ended = np.flatnonzero(out.terminated | out.truncated).astype(np.int32)
        if ended.size:
            self._last_features[ended] = self._features[ended]
            out.last_obs[ended], out.last_state[ended] = out.obs[ended], out.state[ended]
            if faults:
                out.last_obs[self._faulty], out.last_state[self._faulty] = 0.0, 0.0
            self._begin(ended, out)

    def _report_faults(self, out: StepArrays) -> None:
        self._faults += np.count_nonzero(self._faulty)
        out.terminated[self._faulty] = False
        out.truncated[self._faulty] = True
        for env in np.flatnonzero(self._faulty):
            reason = self._physics.error(int(env))
            if not reason and abs(self._reward[env]) > np.finfo(np.float32).max:
                reason = f"the reward {self._reward[env]:g} is more than float32 holds"
            reason = reason or "the simulation became unstable"
            log.warning(
                "%s: environment %d, episode %d, step %d: %s; the episode ends and the step is dropped",
                *(self.spec.name, int(self._stream[1]) + env, self._episode[env], self._elapsed[env], reason),
            )
        self._reward[self._faulty] = 0.0

    def _begin(self, envs: Array, out: StepArrays) -> None:
        """Start the next episode of ``envs`` (sorted int32)."""
        self._episode[envs] += 1
        starts = [self._draw_start(int(env)) for env in envs]
        self._place(envs, np.stack([qpos for qpos, _ in starts]), np.stack([qvel for _, qvel in starts]))
        kernels.observe(self._features, self._plan, envs, out.obs, out.state)

    def _draw_start(self, env: int) -> tuple[Array, Array]:
        seed, first_env = (int(number) for number in self._stream)
        counter = [0, 0, int(self._episode[env]), first_env + env]
        random = np.random.Generator(np.random.Philox(key=[seed, _STARTS], counter=counter))
        return start_state(self._scenario, self._model.qpos0, self._model.nv, random)

    def _place(self, envs: Array, qpos: Array, qvel: Array) -> None:
        """Put ``envs`` at the start of an episode in these states."""
        self._physics.reset(envs)
        self._physics.qpos[envs], self._physics.qvel[envs] = qpos, qvel
        self._physics.forward(envs)
        for part, source in self._copies:
            part[envs] = source[envs]
        self._derive(self._features)
        kernels.positions(self._features, self._terms, envs, self._position)
        self._elapsed[envs] = 0

    def _derive(self, features: Array) -> None:
        """Reacher's derived numbers, by numpy as in Gymnasium (its sine differs from libm's in the last bit)."""
        if "sine" not in self._layout.sizes:
            return
        angles, positions = features[:, self._layout["qpos"]][:, :2], features[:, self._layout["xpos"]]
        features[:, self._layout["sine"]] = np.sin(angles)
        features[:, self._layout["cosine"]] = np.cos(angles)
        fingertip, target = (3 * self._model.body(name).id for name in ("fingertip", "target"))
        tip = positions[:, fingertip : fingertip + 3] - positions[:, target : target + 3]
        features[:, self._layout["tip"]] = tip

    @staticmethod
    def _fill_constants(out: StepArrays) -> None:
        out.avail_actions[...], out.alive[...], out.won[...] = True, True, False
