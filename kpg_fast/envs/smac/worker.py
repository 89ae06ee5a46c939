"""One environment of smac or smacv2 in a process of its own; `library` starts it and talks to it.

Nothing here needs torch, so a worker does without it (`library._BOOT`). The libraries are used unmodified, but shielded
from what would spoil data in silence: a lost game is reported instead of being restarted inside them (they would go on
with an episode nobody sees, and in their first one add up the reward scale again), and the reward scale is set to what
it is meant to be.
"""

import json
import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from kpg_fast.envs.smac import shared
from kpg_fast.envs.smac.launcher import die_with_parent
from kpg_fast.envs.smac.processes import is_listening
from kpg_fast.envs.smac.teams import stream
from kpg_fast.envs.vec_env import EnvSpec

STEP, STEP_AND_HOLD, RESET = b"s", b"h", b"r"
_POLL_S = 0.02


class GameLostError(Exception):
    """The game crashed or does not answer."""


class Worker:
    """Builds the environment, plays it as it is told, writes its row of the board.

    ``task``: row, library, map_name, options, spec, seed, ports, max_reward, launch_timeout,
    bootstrap_time_limit. How long a step may take is the supervisor's to watch.
    """

    def __init__(self, task: dict[str, Any], board: shared.Board) -> None:
        self.task, self.board = task, board
        self.row: int = task["row"]
        prepare_launch(task["ports"], task["launch_timeout"])
        build = _build_v2 if task["library"] == "smacv2" else _build_v1
        self.env, self.distributions = build(task["map_name"], task["options"], task["seed"])
        self.env.full_restart = self._lose

    def _lose(self) -> None:
        """Stands in for the library's own restart, which would hide the loss."""
        raise GameLostError(f"{type(sys.exc_info()[1]).__name__}: {sys.exc_info()[1]}")

    def start(self) -> dict[str, str]:
        """The first episode of a new game; returns what is known of the game."""
        self._reset()
        env, scale = self.env, self.task["max_reward"]
        if scale is None:
            scale = env.n_enemies * env.reward_death_value + env.reward_win
            scale += sum(unit.health_max + unit.shield_max for unit in env.enemies.values())
        env.max_reward = self.board.max_reward[self.row] = scale
        self._look()
        return {"game_version": env._controller.ping().game_version}

    def reset(self) -> None:
        """Give the running episode up and begin another."""
        # the library counts episodes that end, and takes the first for one whose game must be started
        self.env._episode_count = max(self.env._episode_count, 1)
        self._reset()
        self._look()

    def step(self, hold: bool) -> str:
        """One step; begins a new episode after the last one unless ``hold``. Returns what happened."""
        env, row, arrays = self.env, self.row, self.board.arrays
        reward, ended, info = env.step(self.board.action[row].tolist())
        limit = bool(info.get("episode_limit", False))
        truncated = limit and self.task["bootstrap_time_limit"]
        arrays.reward[row], arrays.won[row] = reward, info["battle_won"]
        arrays.terminated[row], arrays.truncated[row] = ended and not truncated, truncated
        if ended:
            self._look(last=True)
        self.board.fought[row] = True
        if ended and hold:
            return "ended"
        if ended:
            self._reset()
        self._look()
        return "stepped"

    def _reset(self) -> None:
        # the wrapper's own reset would, after units that never appeared, reset a second time
        drawn: dict[str, Any] = {}
        for distribution in self.distributions.values():
            drawn |= distribution.generate()
        if self.distributions:
            self.env.reset(drawn)
        else:
            self.env.reset()

    def _look(self, last: bool = False) -> None:
        env, row, arrays = self.env, self.row, self.board.arrays
        obs = np.stack(env.get_obs())
        if obs.shape != arrays.obs[row].shape:
            raise ValueError(f"{self.task['library']} observes {obs.shape}, not {arrays.obs[row].shape} as expected")
        if last:
            arrays.last_obs[row], arrays.last_state[row] = obs, env.get_state()
            return
        arrays.obs[row], arrays.state[row] = obs, env.get_state()
        arrays.avail_actions[row] = env.get_avail_actions()
        arrays.alive[row] = [env.agents[agent].health > 0 for agent in range(env.n_agents)]


def _build_v1(map_name: str, options: dict[str, Any], seed: int) -> tuple[Any, dict[str, Any]]:
    from smac.env import StarCraft2Env

    return StarCraft2Env(map_name=map_name, seed=seed, **options), {}


def _build_v2(map_name: str, options: dict[str, Any], seed: int) -> tuple[Any, dict[str, Any]]:
    from smacv2.env import StarCraftCapabilityEnvWrapper
    from smacv2.env.starcraft2.distributions import Distribution

    def plant(distribution: Any, place: str) -> None:
        for key, value in vars(distribution).items():
            if key == "rng":
                distribution.rng = stream(seed, place)
            elif isinstance(value, Distribution):
                plant(value, f"{place}.{key}")

    wrapper = StarCraftCapabilityEnvWrapper(map_name=map_name, seed=seed, **options)
    for name, distribution in wrapper.env_key_to_distribution_map.items():
        plant(distribution, name)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (smacv2 draws from numpy's global generator)
    return wrapper.env, wrapper.env_key_to_distribution_map


def prepare_launch(ports: list[int], timeout: float) -> None:
    """Let pysc2 start games on our ports, that die with this process, and without its wait of a second."""
    from absl import flags
    from pysc2.lib import sc_process

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["kpg_fast"])
    flags.FLAGS["sc2_timeout"].value = int(np.ceil(timeout))
    left = iter(ports)
    sc_process.portpicker = SimpleNamespace(pick_unused_port=lambda: next(left), return_port=lambda port: None)
    sc_process.subprocess = SimpleNamespace(Popen=partial(_popen_listening, timeout))


def _popen_listening(timeout: float, command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start the game and come back when it can be connected to, so that the first try succeeds."""
    bound = partial(die_with_parent, os.getpid())
    process: subprocess.Popen[bytes] = subprocess.Popen(command, preexec_fn=bound, **options)
    port, deadline = int(command[command.index("-port") + 1]), time.monotonic() + timeout
    while process.poll() is None and not is_listening(port) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return process


def main() -> None:
    """``worker TASK.json COMMANDS EVENTS MEMORY``: the last three are inherited descriptors."""
    task = json.loads(Path(sys.argv[1]).read_text())
    commands, events, memory = (int(text) for text in sys.argv[2:5])

    def tell(what: str, why: str) -> None:
        line = f"{what} {' '.join(why.split())}"[:1000]
        os.write(events, line.encode() + b"\n")

    try:
        board = shared.attach(memory, EnvSpec(**task["spec"]))
        worker = Worker(task, board)
        tell("ready", json.dumps(worker.start()))
        while command := os.read(commands, 1):
            if command == RESET:
                worker.reset()
                tell("ready", "{}")
            else:
                tell(worker.step(hold=command == STEP_AND_HOLD), "")
    except Exception as error:
        tell("failed", str(error) if isinstance(error, GameLostError) else f"{type(error).__name__}: {error}")
    # the game dies with this process; the library's own goodbye can take seconds
    os._exit(0)
