"""Steps of 64 MAMuJoCo environments: against nothing but MuJoCo's mj_step, and against Gymnasium-Robotics in processes.

All contenders play the same steps from the same state. ``mj_step`` is the limit of two threads that do nothing else:
each steps its own simulations, controls copied in, no observation, no reward, no waiting for the other thread.
``gymnasium-robotics`` is its MaMuJoCo in one process a CPU over pipes, as PyMARL and HARL run it.
"""

import ctypes
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numba import njit

from bench.measure import Case, Samples, in_turns, rates
from kpg_fast.envs import StepArrays
from kpg_fast.envs.mamujoco import make_env, requirements
from kpg_fast.envs.mamujoco.native import library
from kpg_fast.envs.vec_env import Array

NUM_ENVS = 64
STEPS = {"HalfCheetah-2x3": 150, "Ant-4x2": 20, "Humanoid-9|8": 20}  # about a tenth of a second each
BEFORE = 100  # random steps before the first that is timed, so that some robots have fallen


class Play:
    """Steps that every contender repeats: where they start, the actions, and where episodes begin anew."""

    def __init__(self, name: str) -> None:
        self.env = make_env(name, NUM_ENVS)
        self.out = StepArrays.empty(self.env.spec)
        self.steps = STEPS[name]
        self.env.reset(self.out)
        random, spec = np.random.default_rng(0), self.env.spec
        shape = (BEFORE + self.steps, NUM_ENVS, spec.num_agents, spec.num_actions)
        high = spec.action_high
        assert high is not None
        actions = random.uniform(-high, high, shape).astype(np.float32)
        for action in actions[:BEFORE]:
            self.env.step(action, self.out)
        self.state = self.env.state_dict()
        self.actions = actions[BEFORE:]
        self.controls, self.ended, self.qpos, self.qvel = self._record()

    def ours(self) -> None:
        """All steps, in our environment."""
        self.env.load_state_dict(self.state)
        for action in self.actions:
            self.env.step(action, self.out)

    def _record(self) -> tuple[Array, Array, Array, Array]:
        """What a simulation is told at every step: controls, whether it begins anew afterwards, and where."""
        controls, ended, starts = [], [], []
        for action in self.actions:
            self.env.step(action, self.out)
            controls.append(self.env._physics.ctrl.copy())
            ended.append(self.out.terminated | self.out.truncated)
            starts.append(self.env.get_state())
        qpos, qvel = (np.stack([start[part] for start in starts]) for part in (0, 1))
        return np.stack(controls), np.stack(ended), qpos, qvel


def limit(play: Play) -> Callable[[], None]:
    """The same steps with mj_step alone, two threads; checked to end in the same states, bit for bit."""
    env, mujoco, threads = play.env, requirements.mujoco(), len(os.sched_getaffinity(0))
    model = env._model
    datas = [mujoco.MjData(model) for _ in range(NUM_ENVS)]
    spec = int(mujoco.mjtState.mjSTATE_INTEGRATION)
    loop, base = _raw_loop(), [array.ctypes.data for array in (play.controls, play.qpos, play.qvel)]
    sizes = (model.nu, model.nq, model.nv)
    addresses = np.array(
        [[d._address, d.ctrl.ctypes.data, d.qpos.ctypes.data, d.qvel.ctypes.data] for d in datas], np.uint64
    )

    def share(thread: int) -> None:
        mine = np.arange(thread, NUM_ENVS, threads)
        loop(model._address, addresses, mine, env._task.frame_skip, play.ended, *base, *sizes)

    def run() -> None:
        for data, row in zip(datas, play.state["rows"], strict=True):
            mujoco.mj_setState(model, data, row, spec)
        workers = [threading.Thread(target=share, args=(thread,)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    play.ours()
    run()
    np.testing.assert_array_equal([data.qpos for data in datas], env.get_state()[0])
    return run


def _raw_loop() -> Any:
    """The compiled loop of one thread. Addresses and sizes come as numbers; C copies between them."""
    functions = {}
    for name, arguments in (
        ("mj_step", [ctypes.c_void_p] * 2),
        ("mj_resetData", [ctypes.c_void_p] * 2),
        ("mj_forward", [ctypes.c_void_p] * 2),
        ("mju_copy", [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]),
    ):
        function = getattr(library(), name)
        function.restype, function.argtypes = None, arguments
        functions[name] = function
    step, reset, forward, copy = functions.values()

    @njit(nogil=True)
    def loop(model, addresses, mine, frame_skip, ended, controls, starts, speeds, nu, nq, nv):  # type: ignore[no-untyped-def]
        steps, num_envs = ended.shape
        for t in range(steps):
            for env in mine:
                at = t * num_envs + env
                data, ctrl, qpos, qvel = addresses[env]
                copy(ctrl, controls + 8 * nu * at, nu)
                for _ in range(frame_skip):
                    step(model, data)
                if ended[t, env]:
                    reset(model, data)
                    copy(qpos, starts + 8 * nq * at, nq)
                    copy(qvel, speeds + 8 * nv * at, nv)
                    forward(model, data)

    return loop


def _serve(pipe: Connection, name: str, qpos: Array, qvel: Array) -> None:
    """A process with some of Gymnasium-Robotics' environments: actions in; observations, rewards and ends out."""
    from gymnasium_robotics.envs.multiagent_mujoco.mujoco_multi import MultiAgentMujocoEnv

    envs = [MultiAgentMujocoEnv(*name.split("-")) for _ in qpos]
    for seed, (env, position, velocity) in enumerate(zip(envs, qpos, qvel, strict=True)):
        env.reset(seed=seed)
        env.single_agent_env.unwrapped.set_state(position, velocity)
    agents = envs[0].possible_agents
    widths = [envs[0].action_spaces[agent].shape[0] for agent in agents]
    while (actions := pipe.recv()) is not None:
        results = []
        for env, action in zip(envs, actions, strict=True):
            given = {agent: action[i, : widths[i]] for i, agent in enumerate(agents)}
            obs, reward, terminated, truncated, _ = env.step(given)
            end = terminated[agents[0]] or truncated[agents[0]]
            if end:
                obs, _ = env.reset()
            results.append(([obs[agent] for agent in agents], env.state(), reward[agents[0]], end))
        pipe.send(results)


@contextmanager
def in_processes(play: Play, name: str) -> Iterator[Callable[[], None]]:
    """The same actions to Gymnasium-Robotics in one process a CPU."""
    context, count = multiprocessing.get_context("spawn"), len(os.sched_getaffinity(0))
    play.env.load_state_dict(play.state)
    shares = np.array_split(np.arange(NUM_ENVS), count)
    qpos, qvel = play.env.get_state()
    pipes, processes = [], []
    for share in shares:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, name, qpos[share], qvel[share]), daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)

    def run() -> None:
        for action in play.actions:
            for pipe, share in zip(pipes, shares, strict=True):
                pipe.send(action[share])
            for pipe in pipes:
                pipe.recv()

    try:
        yield run
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.send(None)
            process.join()


def _against_limit(name: str) -> Samples:
    play = Play(name)
    seconds = in_turns({"ours": play.ours, "mj_step": limit(play)}, repeats=15)
    play.env.close()
    return rates(seconds, NUM_ENVS * play.steps)


def _against_processes(name: str) -> Samples:
    play = Play(name)
    with in_processes(play, name) as run:
        seconds = in_turns({"ours": play.ours, "gymnasium-robotics": run}, repeats=7, warmup=1)
    play.env.close()
    return rates(seconds, NUM_ENVS * play.steps)


def cases(peers: str | None = None) -> list[Case]:
    """Environment steps a second of every task, with observations, rewards and resets.

    Raises:
        UsageError: MuJoCo is missing.
    """
    requirements.mujoco()
    others: list[tuple[str, Callable[[str], Samples], str]] = [("limit", _against_limit, "mj_step")]
    if find_spec("gymnasium_robotics"):
        others.append(("processes", _against_processes, "gymnasium-robotics"))
    return [
        Case(
            name=f"mamujoco_step/{name}/{kind}",
            metric="env_sps",
            unit="env steps/s",
            run=partial(run, name),
            reference=reference,
            settings={"num_envs": NUM_ENVS, "threads": len(os.sched_getaffinity(0)), "steps": STEPS[name]},
            tests=("tests/envs/mamujoco/test_parity.py",),
            quick=name == "HalfCheetah-2x3" and kind == "limit",
        )
        for name in STEPS
        for kind, run, reference in others
    ]
