"""StarCraft II: what a client costs, and how fast games of uneven speed are stepped.

On the game that ``SC2PATH`` names, where there is one, and else on the stand-in of the tests, which says nothing about
the game's own speed; the settings of every row name the version that was played.

    client CPU     ms of the client's CPU a step (step, observations, state, masks; policy and new episodes left out),
                   ours against the unmodified smac with protobuf in C (upb) and in Python
    throughput     8 games; on the stand-in each step takes a random 2 to 20 ms: ours (`recv`: whoever is ready; `step`:
                   all together) against a plain lock-step runner (`bench.smac_lock_step`)
    games a core   how many games one core of client keeps going: wall-clock time of a step by the client's CPU in it
    memory         resident MB: what a game adds to our one process, and a worker of the libraries, which has one game
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import Case, Samples
from bench.smac_lock_step import Array, LockStepRunner
from kpg_fast.envs import StepArrays
from kpg_fast.envs.smac import SmacEnv, diagnose, make_env
from kpg_fast.envs.smac.installation import locate
from kpg_fast.errors import UsageError

_ROOT = Path(__file__).resolve().parents[1]
_TESTS = ("tests/envs/smac/test_wire.py", "tests/envs/smac/test_golden.py")
_MAPS = ("3m", "2s3z", "MMM2", "27m_vs_30m")
_UNEVEN_S = (0.002, 0.02)
_GAMES = 8


def cases(peers: str | None = None) -> list[Case]:
    """What is measured; ``UsageError`` without s2clientprotocol."""
    findings = {what: (ok, detail) for what, ok, detail in diagnose()}
    if not findings["client native"][0]:
        raise UsageError(findings["client native"][1])
    stock, references = _have_smac(), ("smac_upb", "smac_python")
    found = [_cpu_case(name, reference) for name in _MAPS for reference in (references if stock else ("",))]
    settings = {"map": "3m", "games": _GAMES, "game": _game()}
    throughput = Case(
        name="smac/throughput/3m",
        metric="env_sps, uneven games, random policy",
        unit="1/s",
        run=_throughput,
        reference="lock_step_smac" if stock else "lock_step_native",
        settings=settings,
        tests=_TESTS,
    )
    memory = Case(
        name="smac/rss/3m",
        metric="resident memory a game adds",
        unit="MB",
        run=_memory,
        reference="smac" if stock else "",
        higher_is_better=False,
        settings=settings,
        tests=_TESTS,
    )
    games = Case(
        name="smac/games_a_core/3m",
        metric="games one core of client keeps going",
        unit="games",
        run=lambda: _pick(_client_cost("3m")["games"], "ours", "smac_upb" if stock else ""),
        reference="smac_upb" if stock else "",
        settings=settings,
        tests=_TESTS,
    )
    return [*found, games, throughput, memory]


def _cpu_case(name: str, reference: str) -> Case:
    return Case(
        name=f"smac/client_cpu/{name}" + (f"/vs_{reference}" if reference else ""),
        metric="client CPU a step",
        unit="ms",
        run=lambda: _pick(_client_cost(name)["cpu"], "ours", reference),
        reference=reference,
        higher_is_better=False,
        settings={"map": name, "games": 1, "game": _game()},
        tests=_TESTS,
    )


def _have_smac() -> bool:
    return find_spec("smac") is not None and find_spec("smac.env") is not None


def _game() -> str:
    """The version that is played: the newest that is installed, or the stand-in's."""
    findings = {what: (ok, detail) for what, ok, detail in diagnose()}
    if not findings.get("version", (False,))[0] or (locate().folder / "faults.json").is_file():
        return "stand-in"
    return findings["version"][1].split(", ")[-1]


def _pick(samples: Samples, *names: str) -> Samples:
    return {name: samples[name] for name in names if name}


@contextmanager
def _played(*faults: dict[str, Any]) -> Iterator[None]:
    """With ``SC2PATH`` at the game, or at a stand-in with these faults."""
    if _game() != "stand-in":
        yield
        return
    sys.path.insert(0, str(_ROOT / "tests"))
    from starcraft import install, set_faults  # type: ignore[import-not-found]

    before = os.environ.get("SC2PATH")
    with tempfile.TemporaryDirectory() as folder:
        set_faults(install(Path(folder)), *faults)
        os.environ["SC2PATH"] = folder
        try:
            yield
        finally:
            os.environ.pop("SC2PATH")
            if before is not None:
                os.environ["SC2PATH"] = before


def _choose(avail: Array, rng: np.random.Generator) -> Array:
    """Random actions [..., N] that mostly attack where they can."""
    weight = np.where(np.arange(avail.shape[-1]) >= 6, 8.0, 1.0)
    actions: Array = (rng.random(avail.shape) * avail * weight).argmax(-1).astype(np.int32)
    return actions


@lru_cache
def _client_cost(name: str, turns: int = 3) -> dict[str, Samples]:
    """Samples by metric and contender; contenders by turns, each in a process of its own."""
    environments = {"smac_python": {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}}
    contenders = ("ours", "smac_upb", "smac_python") if _have_smac() else ("ours",)
    metrics: dict[str, Samples] = {metric: {name: [] for name in contenders} for metric in ("cpu", "games")}
    with _played():
        for _ in range(turns):
            for contender in contenders:
                command = [sys.executable, "-W", "ignore", "-m", "bench.smac_step", contender, name]
                environment = os.environ | environments.get(contender, {})
                done = subprocess.run(
                    command, env=environment, cwd=_ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                for metric, values in json.loads(done.stdout.splitlines()[-1]).items():
                    metrics[metric][contender] += values
    return metrics


@dataclass
class _Cost:
    """CPU of this process and time on the wall of each step, in seconds."""

    steps: list[tuple[float, float]] = field(default_factory=list)
    begun: tuple[float, float] = (0.0, 0.0)

    def begin(self) -> None:
        self.begun = time.process_time(), time.perf_counter()

    def end(self) -> None:
        cpu, wall = self.begun
        self.steps.append((time.process_time() - cpu, time.perf_counter() - wall))

    def summary(self, blocks: int = 5) -> dict[str, list[float]]:
        """By parts, after a warm-up: mean ms of CPU a step, and how many games one core of client would keep going."""
        parts = np.array_split(np.array(self.steps[len(self.steps) // 10 :]), blocks)
        cpu, wall = np.array([part.mean(0) for part in parts]).T
        return {"cpu": (1000 * cpu).tolist(), "games": (wall / cpu).tolist()}


def _cost_of_ours(name: str, steps: int) -> _Cost:
    env, rng, cost = make_env(name, 1, client="native"), np.random.default_rng(0), _Cost()
    with closing(env):
        out = StepArrays.empty(env.spec)
        env.reset(out)
        while len(cost.steps) < steps:
            action = _choose(out.avail_actions, rng)
            cost.begin()
            env.step(action, out)
            if not (out.terminated[0] or out.truncated[0]):
                cost.end()
    return cost


def _cost_of_smac(name: str, steps: int) -> _Cost:
    from smac.env import StarCraft2Env

    env, rng, cost = StarCraft2Env(map_name=name), np.random.default_rng(0), _Cost()
    with closing(env):
        while len(cost.steps) < steps:
            env.reset()
            ended, avail = False, env.get_avail_actions()
            while not ended:
                action = _choose(np.array(avail), rng)
                cost.begin()
                _, ended, _ = env.step(action)
                env.get_obs(), env.get_state()
                avail = env.get_avail_actions()
                if not ended:
                    cost.end()
    return cost


def _throughput(seconds: float = 3.0, turns: int = 3) -> Samples:
    contenders = {"ours": _ready_first, "step_all": _all_together, "lock_step_native": _lock_step}
    if _have_smac():
        contenders["lock_step_smac"] = _lock_step_smac
    samples: Samples = {name: [] for name in contenders}
    with _played({"kind": "slow", "seconds": list(_UNEVEN_S)}):
        for _ in range(turns):
            for name, contender in contenders.items():
                samples[name].append(contender(seconds))
    return samples


def _games(num_envs: int = _GAMES, client: str = "native") -> SmacEnv:
    return make_env("3m", num_envs, client=client, stagger=0.05)


def _ready_first(seconds: float) -> float:
    """Steps a second where whoever is ready goes on."""
    env, rng, steps = _games(), np.random.default_rng(0), 0
    with closing(env):
        out, rows = StepArrays.empty(env.spec), np.arange(_GAMES)
        env.reset(out)
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            env.send(_choose(out.avail_actions, rng), rows)
            rows = env.recv(out)
            steps += int(out.valid[rows].sum())
        return steps / (time.perf_counter() - begun)


def _all_together(seconds: float) -> float:
    """Steps a second where everybody waits for the slowest, but not for the longest episode."""
    env, rng, steps = _games(), np.random.default_rng(0), 0
    with closing(env):
        out = StepArrays.empty(env.spec)
        env.reset(out)
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            env.step(_choose(out.avail_actions, rng), out)
            steps += int(out.valid.sum())
        return steps / (time.perf_counter() - begun)


class _OneGame:
    """Our client for one game with the interface of smac, for the lock-step runner."""

    def __init__(self, index: int) -> None:
        self.env = make_env("3m", 1, index, client="native")
        self.out = StepArrays.empty(self.env.spec)

    def reset(self) -> None:
        self.env.reset(self.out)

    def step(self, actions: Array) -> tuple[float, bool, dict[str, Any]]:
        self.env.step(actions[None], self.out)
        ended = bool(self.out.terminated[0] or self.out.truncated[0])
        return float(self.out.reward[0]), ended, {"battle_won": bool(self.out.won[0])}

    def get_state(self) -> Any:
        return self.out.state[0]

    def get_obs(self) -> Any:
        return self.out.obs[0]

    def get_avail_actions(self) -> Any:
        return self.out.avail_actions[0]

    def close(self) -> None:
        self.env.close()


def _lock_step(seconds: float) -> float:
    return _run_in_lock_step(LockStepRunner(_GAMES, _OneGame), seconds)


def _lock_step_smac(seconds: float) -> float:
    def build(index: int) -> Any:
        from smac.env import StarCraft2Env

        return StarCraft2Env(map_name="3m", seed=index)

    return _run_in_lock_step(LockStepRunner(_GAMES, build), seconds)


def _run_in_lock_step(runner: LockStepRunner, seconds: float) -> float:
    rng = np.random.default_rng(0)
    with closing(runner):
        runner.run(lambda avail: _choose(avail, rng))
        steps, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            steps += runner.run(lambda avail: _choose(avail, rng))
        return steps / (time.perf_counter() - begun)


def _memory() -> Samples:
    with _played():
        few, many = (_rss_with(games) for games in (1, 33))
        samples: Samples = {"ours": [(many - few) / 32]}
        if _have_smac():
            with closing(_games(2, "smac")) as env:
                env.reset(StepArrays.empty(env.spec))
                slots = env._client._slots.values()  # type: ignore[attr-defined]
                samples["smac"] = [_rss(slot.process.pid) for slot in slots]
    return samples


def _rss_with(games: int) -> float:
    """Resident MB of a process of its own that plays so many."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.smac_step", "memory", "3m", "--games", str(games)]
    done = subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return float(done.stdout)


def _rss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def _memory_of_this_process(games: int) -> float:
    with closing(_games(games)) as env:
        out = StepArrays.empty(env.spec)
        env.reset(out)
        env.step(_choose(out.avail_actions, np.random.default_rng(0)), out)
        return _rss(os.getpid())


def main() -> None:
    """One contender's client CPU as JSON, or resident MB: ``python -m bench.smac_step CONTENDER|memory MAP``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("contender", choices=("ours", "smac_upb", "smac_python", "memory"))
    parser.add_argument("map")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--games", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.contender == "memory":
        print(_memory_of_this_process(arguments.games))
        return
    cost = _cost_of_ours if arguments.contender == "ours" else _cost_of_smac
    print(json.dumps(cost(arguments.map, arguments.steps).summary()))


if __name__ == "__main__":
    main()
