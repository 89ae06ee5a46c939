"""Training against JaxMARL's own MAPPO script, in the same setting on the same machine: speed, and time to win.

Needs ``--peers`` with the path of a JaxMARL checkout; its wheel has no scripts. It compiles apart, and so do we.
"""

import json
import subprocess
import sys
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench.flops import Training
from bench.measure import Bound, Case, Samples
from kpg_fast.config import Config
from kpg_fast.k_mappo_trainer import KMappoTrainer

ENV, MAP = "smax/2s3z", "2s3z"
TESTS = ("tests/test_k_mappo.py",)
ROLLOUT = 128 * 128  # environment steps
OURS: dict[str, dict[str, Any]] = {
    "K1": {"levels": 1},
    "K1/bf16": {"levels": 1, "precision": "bf16"},
    "K2": {"levels": 2},
    "K2/mixed-lookahead": {"levels": 2, "precision": "mixed-lookahead"},
    "K2/bf16": {"levels": 2, "precision": "bf16"},
}
TO_WIN = ("K1", "K1/bf16", "K2/bf16")
TOTAL_STEPS, WIN_RATE = 1_000_000, 0.95


@cache
def speeds(checkout: str, iterations: int = 5, turns: int = 3) -> Samples:
    """Environment steps a second of all of ours and of JaxMARL: a few iterations each, then the next."""
    trainers = {name: KMappoTrainer(Config.make("k-mappo", ENV, **values)) for name, values in OURS.items()}
    samples: Samples = {name: [] for name in [*trainers, "jaxmarl"]}
    for trainer in trainers.values():
        trainer.update()
    for _ in range(turns):
        for name, trainer in trainers.items():
            start = time.perf_counter()
            for _ in range(iterations):
                trainer.update()
            samples[name].append(iterations * ROLLOUT / (time.perf_counter() - start))
        totals = jaxmarl(checkout, iterations * ROLLOUT)[-1]
        samples["jaxmarl"].append(totals["env_sps"])
    return samples


def jaxmarl(checkout: str, steps: int, seed: int = 0) -> list[dict[str, Any]]:
    """What bench/jaxmarl_mappo.py prints: a line an update, then the totals."""
    script = Path(__file__).with_name("jaxmarl_mappo.py")
    command = [sys.executable, str(script), checkout, "--map", MAP, "--steps", str(steps), "--seed", str(seed)]
    return rows_in(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def rows_in(output: str) -> list[dict[str, Any]]:
    """The lines of JSON; importing JaxMARL prints others."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


@cache
def seconds_to_win(checkout: str, seed: int) -> Samples:
    """Seconds of training until the episodes that end in a rollout are won at ``WIN_RATE``."""
    samples = {name: [_ours_to_win(OURS[name], seed)] for name in TO_WIN}
    lines = jaxmarl(checkout, TOTAL_STEPS, seed)[:-1]
    samples["jaxmarl"] = [next((line["seconds"] for line in lines if line["win_rate"] >= WIN_RATE), float("inf"))]
    return samples


def _ours_to_win(values: dict[str, Any], seed: int) -> float:
    config = Config.make("k-mappo", ENV, seed=seed, total_steps=TOTAL_STEPS, **values)
    KMappoTrainer(config).update()  # compiles
    trainer, start = KMappoTrainer(config), time.perf_counter()
    for _ in range(trainer.num_updates):
        if trainer.update()["win_rate"] >= WIN_RATE:
            return time.perf_counter() - start
    return float("inf")


def cases(peers: str | None = None) -> list[Case]:
    """The race, and the time to win for three seeds."""
    if not peers:
        return []
    found = []
    for name, values in OURS.items():
        settings = {"preset": "jaxmarl", "precision": "fp32"} | values
        exact = settings["precision"] != "mixed-lookahead"
        work = Training.of(Config.make("k-mappo", ENV, **values)).env_step()
        bound = Bound.of_rate(settings["precision"], work) if exact else None
        found.append(_case(f"race/{name}", "env_sps", "env steps/s", name, partial(speeds, peers), settings, bound))
    for seed in range(3):
        for name in TO_WIN:
            settings = {"preset": "jaxmarl", "precision": "fp32", "seed": seed, "win_rate": WIN_RATE} | OURS[name]
            run = partial(seconds_to_win, peers, seed)
            found.append(_case(f"time_to_win/seed{seed}/{name}", "time", "s", name, run, settings))
    return found


def _case(
    name: str, metric: str, unit: str, ours: str, run: Any, settings: dict[str, Any], bound: Bound | None = None
) -> Case:
    def beside() -> Samples:
        samples = run()
        return {"ours": samples[ours], "jaxmarl": samples["jaxmarl"]}

    return Case(
        name=f"train.k_mappo/{MAP}/jaxmarl/{name}",
        metric=metric,
        unit=unit,
        run=beside,
        reference="jaxmarl",
        higher_is_better=metric == "env_sps",
        settings=settings | {"checkout": "baselines/MAPPO"},
        tests=TESTS,
        bound=bound,
    )
