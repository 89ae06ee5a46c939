"""Steps of SMAX against JaxMARL 0.2.0: random available actions, observations, world state and masks, auto-reset.

``jaxmarl`` is its usual best form, jit(scan(vmap(step))), in one process that may use every core; ``jaxmarl-pinned``
is one such process a core, pinned there and started together, which is what uses two cores best. Both play 1024 games
a process, are compiled before anything is timed, and are given with ``--peers``.
"""

import multiprocessing
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import numba
import numpy as np
from numba import njit, prange

from bench.measure import Case, Samples, in_turns, rates
from kpg_fast.envs import StepArrays
from kpg_fast.envs.smax import make_env
from kpg_fast.envs.smax.philox import philox
from kpg_fast.envs.vec_env import Array
from kpg_fast.errors import UsageError

NUM_ENVS = 1024
# Our steps and JaxMARL's in a sample, about a second each: the first tenths after the other's turn are slower, ours by
# up to a half.
STEPS = {"2s3z": (1500, 24), "3s5z_vs_3s6z": (750, 12), "10m_vs_11m": (400, 8), "27m_vs_30m": (80, 1)}
TESTS = ("tests/envs/smax/test_parity.py", "tests/envs/smax/test_env.py")
FOR_BENCH = 99  # a purpose of random numbers that the games do not use
DRAWS = 8  # of 16 bits in the four words of a block


@njit(parallel=True, nogil=True)
def choose(available: Array, clock: int, action: Array) -> None:
    """One of its available actions for every agent, uniformly."""
    envs, agents, num_actions = available.shape
    for e in prange(envs):
        words = philox(1, e, clock, 0, FOR_BENCH)
        for i in range(agents):
            if i % DRAWS == 0 and i:
                words = philox(1, e, clock, i, FOR_BENCH)
            count = 0
            for a in range(num_actions):
                count += available[e, i, a]
            drawn = np.int64(words[i % 4] >> np.uint64(16 * (i % DRAWS // 4)) & np.uint64(0xFFFF)) * count >> 16
            seen, chosen = 0, 0
            for a in range(num_actions):  # to the end: a loop that breaks off is mispredicted every time
                seen += available[e, i, a]
                chosen += seen <= drawn
            action[e, i] = chosen


def ours(name: str, num_envs: int, steps: int) -> Callable[[], None]:
    """Play ``steps`` steps in every call."""
    env = make_env(name, num_envs, seed=0)
    out = StepArrays.empty(env.spec)
    action = np.zeros((num_envs, env.spec.num_agents), np.int32)
    env.reset(out)
    clock = [0]

    def play() -> None:
        for _ in range(steps):
            clock[0] += 1
            choose(out.avail_actions, clock[0], action)
            env.step(action, out)

    return play


def _serve(pipe: Connection, name: str, core: int | None, steps: int) -> None:
    """A process with JaxMARL: compiles, then plays ``steps`` steps whenever asked to."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp
    from jaxmarl import make
    from jaxmarl.environments.smax import map_name_to_scenario

    env = make("HeuristicEnemySMAX", scenario=map_name_to_scenario(name))
    key, child = jax.random.split(jax.random.PRNGKey(0))
    obs, state = jax.vmap(env.reset)(jax.random.split(child, NUM_ENVS))
    available = jax.vmap(env.get_avail_actions)(state)

    def step(carry: Any, _: None) -> Any:
        key, _, state, available, *_ = carry
        key, act_key, step_key = jax.random.split(key, 3)
        mask = jnp.stack([available[agent] for agent in env.agents], axis=1)
        chosen = (jax.random.uniform(act_key, mask.shape) * mask).argmax(-1)
        actions = {agent: chosen[:, i] for i, agent in enumerate(env.agents)}
        obs, state, reward, done, _ = jax.vmap(env.step)(jax.random.split(step_key, NUM_ENVS), state, actions)
        return (key, obs, state, jax.vmap(env.get_avail_actions)(state), reward, done), None

    reward = dict.fromkeys(env.agents, jnp.zeros(NUM_ENVS))
    done = dict.fromkeys([*env.agents, "__all__"], jnp.zeros(NUM_ENVS, bool))
    play = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=steps)[0])
    carry = jax.block_until_ready(play((key, obs, state, available, reward, done)))
    pipe.send("compiled")
    while pipe.recv():
        carry = jax.block_until_ready(play(carry))
        pipe.send("played")


class Peers:
    """Processes with JaxMARL, one for every entry of ``cores`` (``None``: not pinned)."""

    def __init__(self, name: str, cores: list[int | None], steps: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for core in cores:
            pipe, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, name, core, steps), daemon=True)
            process.start()
            self.pipes.append(pipe)
            self.processes.append(process)

    def compiled(self) -> None:
        """Wait until all can play."""
        for pipe in self.pipes:
            pipe.recv()

    def play(self) -> None:
        """All play their steps at once."""
        for pipe in self.pipes:
            pipe.send(True)
        for pipe in self.pipes:
            pipe.recv()

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(False)
            process.join()


@cache
def _beside_jaxmarl(name: str) -> Samples:
    """Env steps per second of the three contenders, in turns."""
    steps, their_steps = STEPS[name]
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        groups: dict[str, Peers] = {}
        for label, pinned in (("jaxmarl", [None]), ("jaxmarl-pinned", cores)):
            groups[label] = Peers(name, list(pinned), their_steps)
            stack.callback(groups[label].close)
        for group in groups.values():
            group.compiled()
        contenders = {"ours": ours(name, NUM_ENVS, steps)} | {label: g.play for label, g in groups.items()}
        seconds = in_turns(contenders, repeats=7, warmup=2)
    work = {"ours": steps, "jaxmarl": their_steps, "jaxmarl-pinned": their_steps * len(cores)}
    return {label: rates({label: seconds[label]}, NUM_ENVS * work[label])[label] for label in contenders}


def _beside(name: str, peer: str) -> Samples:
    samples = _beside_jaxmarl(name)
    return {label: samples[label] for label in ("ours", peer)}


def _alone(name: str, num_envs: int, steps: int) -> Samples:
    return rates(in_turns({"ours": ours(name, num_envs, steps)}, repeats=9), num_envs * steps)


def cases(peers: str | None = None) -> list[Case]:
    """The cases of this module; JaxMARL stands beside them where ``peers`` is not ``None``.

    Raises:
        UsageError: JaxMARL is asked for and not installed.
    """
    if peers is not None and find_spec("jaxmarl") is None:
        raise UsageError("JaxMARL is not installed: pip install jaxmarl==0.2.0")
    settings = {"num_envs": NUM_ENVS, "threads": numba.get_num_threads(), "flavour": "default", "seed": 0}
    make_case = partial(Case, metric="env_sps", unit="env steps/s", tests=TESTS)
    found = []
    for name, (steps, _) in STEPS.items():
        if peers is None:
            found.append(make_case(f"smax_step/{name}", run=partial(_alone, name, NUM_ENVS, steps), settings=settings))
            continue
        for label in ("jaxmarl", "jaxmarl-pinned"):
            run = partial(_beside, name, label)
            found.append(make_case(f"smax_step/{name}/{label}", run=run, reference=label, settings=settings))
    small = settings | {"num_envs": 128}
    run = partial(_alone, "2s3z", 128, 2000)
    found.append(make_case("smax_step/2s3z/128_envs", run=run, settings=small))
    return found
