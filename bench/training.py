"""End-to-end training: what a level costs, and JaxMARL's MAPPO beside ours.

Seconds an iteration (rollout, K levels, critic, bookkeeping) at K = 1..5, the trainers of all K by turns in one
process; the first iterations, in which kernels compile, are thrown away.
"""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from bench.measure import Case, Samples, in_turns, rates
from kpg_fast.config import Config
from kpg_fast.k_mappo_trainer import KMappoTrainer

MAPS = ("2s3z", "3s5z_vs_3s6z", "10m_vs_11m", "27m_vs_30m")
LEVELS = range(1, 6)
TESTS = ("tests/test_k_mappo.py",)
ITERATIONS = 3


def steps_per_second(env: str, levels: int, values: dict[str, Any]) -> Samples:
    """Environment steps a second at ``levels`` and at K = 1, iteration by iteration in turns."""
    trainers = {"ours": levels, "K1": 1} if levels > 1 else {"ours": 1}
    built = {name: KMappoTrainer(Config.make("k-mappo", env, levels=k, **values)) for name, k in trainers.items()}
    seconds = in_turns({name: trainer.update for name, trainer in built.items()}, repeats=ITERATIONS, warmup=1)
    settings = built["ours"].config.settings
    return rates(seconds, settings.num_envs * settings.num_steps)


def beside_jaxmarl(name: str, checkout: str, iterations: int = 5) -> Samples:
    """Our K = 1 and JaxMARL's script on the same setting, in turns: a few iterations each, then the other again."""
    steps = iterations * 128 * 128
    samples: Samples = {"ours": [], "jaxmarl": []}
    trainer = KMappoTrainer(Config.make("k-mappo", f"smax/{name}", levels=1, preset="jaxmarl"))
    trainer.update()
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(iterations):
            trainer.update()
        samples["ours"].append(steps / (time.perf_counter() - start))
        samples["jaxmarl"].append(_jaxmarl(name, checkout, steps))
    return samples


def seeds_at_once(env: str, seeds: int, values: dict[str, Any]) -> Samples:
    """Environment steps a second of all seeds: as one batch, and one after another, by turns."""
    config = Config.make("k-mappo", env, **values)
    batch = KMappoTrainer(config, seeds=range(seeds))
    alone = [KMappoTrainer(Config.make("k-mappo", env, seed=seed, **values)) for seed in range(seeds)]
    contenders = {"ours": batch.update_all, "one by one": lambda: [trainer.update() for trainer in alone]}
    seconds = in_turns(contenders, repeats=ITERATIONS, warmup=1)
    return rates(seconds, seeds * config.k_mappo.num_envs * config.k_mappo.num_steps)


def _jaxmarl(name: str, checkout: str, steps: int) -> float:
    script = Path(__file__).with_name("jaxmarl_mappo.py")
    command = [sys.executable, str(script), checkout, "--map", name, "--steps", str(steps)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(result.stdout.splitlines()[-1])["env_sps"])


def cases(peers: str | None = None) -> list[Case]:
    """Every map at every K in both presets, and with ``peers`` (a JaxMARL checkout) the race."""
    found = [
        Case(
            name=f"train.k_mappo/{name}/{preset}/K{levels}",
            metric="env_sps",
            unit="env steps/s",
            run=partial(steps_per_second, f"smax/{name}", levels, {"preset": preset}),
            reference="K1" if levels > 1 else "",
            settings={"preset": preset, "levels": levels, "precision": "fp32"},
            tests=TESTS,
        )
        for preset in ("jaxmarl", "kpg")
        for name in MAPS
        for levels in LEVELS
    ]
    found += [
        Case(
            name=f"train.k_mappo/2s3z/four seeds/{num_envs} envs",
            metric="env_sps",
            unit="env steps/s",
            run=partial(seeds_at_once, "smax/2s3z", 4, {"num_envs": num_envs}),
            reference="one by one",
            settings={"preset": "jaxmarl", "levels": 2, "precision": "fp32", "num_envs": num_envs},
            tests=("tests/test_seeds.py",),
        )
        for num_envs in (8, 128)
    ]
    if peers:
        found += [
            Case(
                name=f"train.k_mappo/{name}/jaxmarl/race",
                metric="env_sps",
                unit="env steps/s",
                run=partial(beside_jaxmarl, name, peers),
                reference="jaxmarl",
                settings={"preset": "jaxmarl", "levels": 1, "precision": "fp32", "checkout": "baselines/MAPPO"},
                tests=TESTS,
            )
            for name in MAPS[:1]
        ]
    return found
