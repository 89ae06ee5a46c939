"""End-to-end training (rollout, levels, critic, bookkeeping): what a level, a precision and a batch of seeds change.

The trainers that are compared take turns in one process, iteration by iteration. The first iteration of each, in which
kernels compile, is thrown away and stands apart as ``first``.
"""

import time
from functools import partial
from importlib.util import find_spec
from typing import Any

from bench.flops import Training
from bench.measure import Bound, Case, Samples, in_turns, rates
from kpg_fast.config import Config
from kpg_fast.k_mappo_trainer import KMappoTrainer
from kpg_fast.trainer import make_trainer

MAPS = ("2s3z", "3s5z_vs_3s6z", "10m_vs_11m", "27m_vs_30m")
TESTS = ("tests/test_k_mappo.py",)
OFF_POLICY_TESTS = ("tests/off_policy/test_update.py",)
ITERATIONS = 3
K1, K2 = {"levels": 1}, {"levels": 2}
MIXED, BF16 = {"precision": "mixed-lookahead"}, {"precision": "bf16"}
# A run of learning alone: no random steps first, updates from the first iteration on.
AT_ONCE = {"num_steps": 100, "warmup": 100, "start_steps": 0}


def steps_per_second(algorithm: str, env: str, contenders: dict[str, dict[str, Any]]) -> Samples:
    """Environment steps a second, iteration by iteration in turns; ``first`` is our first iteration."""
    built = {name: make_trainer(Config.make(algorithm, env, **values)) for name, values in contenders.items()}
    settings = built["ours"].config.settings
    work = settings.num_envs * settings.num_steps
    start = time.perf_counter()
    built["ours"].update()
    first = {"first": [work / (time.perf_counter() - start)]}
    seconds = in_turns({name: trainer.update for name, trainer in built.items()}, repeats=ITERATIONS, warmup=1)
    for trainer in built.values():
        trainer.close()
    return rates(seconds, work) | first


def seeds_at_once(env: str, seeds: int, values: dict[str, Any]) -> Samples:
    """Environment steps a second of all seeds: as one batch, and one after another, by turns."""
    config = Config.make("k-mappo", env, **values)
    batch = KMappoTrainer(config, seeds=range(seeds))
    alone = [KMappoTrainer(Config.make("k-mappo", env, seed=seed, **values)) for seed in range(seeds)]
    contenders = {"ours": batch.update_all, "one by one": lambda: [trainer.update() for trainer in alone]}
    seconds = in_turns(contenders, repeats=ITERATIONS, warmup=1)
    return rates(seconds, seeds * config.k_mappo.num_envs * config.k_mappo.num_steps)


def cases(peers: str | None = None) -> list[Case]:
    """Every map in both presets, every precision, every other family, and seeds as a batch."""
    found = []
    for preset in ("jaxmarl", "kpg"):
        for name in MAPS:
            found += [_smax(name, preset, K1), _smax(name, preset, K2, ("K1", K1))]
    found += [_smax(name, "jaxmarl", K2 | MIXED, ("K1", K1)) for name in MAPS]
    found += [
        _smax("2s3z", "jaxmarl", K1 | BF16, ("K1", K1)),
        _smax("2s3z", "jaxmarl", K2 | BF16, ("K1/bf16", K1 | BF16)),
        _smax("2s3z", "jaxmarl", K2 | BF16 | {"lookahead_share": 0.25}, ("K1/bf16", K1 | BF16)),
    ]
    found.append(_other("k-facmac", "smax/2s3z", {"warmup": 32}, OFF_POLICY_TESTS))
    if find_spec("mujoco"):
        cheetah = "mamujoco/HalfCheetah-2x3"
        found.append(_other("k-mappo", cheetah, {}, TESTS))
        found += [_other(algorithm, cheetah, AT_ONCE, OFF_POLICY_TESTS) for algorithm in ("k-facmac", "k-maddpg")]
    return found + [_seeds(num_envs) for num_envs in (8, 128)]


def _smax(name: str, preset: str, ours: dict[str, Any], reference: tuple[str, dict[str, Any]] = ("", {})) -> Case:
    settings = {"preset": preset, "precision": "fp32"} | ours
    label, other = reference
    contenders = {"ours": settings} | ({label: {"preset": preset} | other} if label else {})
    variant = "/".join(str(value) for name, value in ours.items() if name != "levels")
    env, exact = f"smax/{name}", settings["precision"] in ("fp32", "bf16") and "lookahead_share" not in ours
    work = Training.of(Config.make("k-mappo", env, **settings)).env_step()
    return Case(
        name=f"train.k_mappo/{name}/{preset}/K{ours['levels']}" + (f"/{variant}" if variant else ""),
        metric="env_sps",
        unit="env steps/s",
        run=partial(steps_per_second, "k-mappo", env, contenders),
        reference=label,
        settings=settings,
        tests=TESTS,
        bound=Bound.of_rate(settings["precision"], work) if exact else None,
    )


def _other(algorithm: str, env: str, values: dict[str, Any], tests: tuple[str, ...]) -> Case:
    return Case(
        name=f"train.{algorithm.replace('-', '_')}/{env}/K2",
        metric="env_sps",
        unit="env steps/s",
        run=partial(steps_per_second, algorithm, env, {"ours": K2 | values, "K1": K1 | values}),
        reference="K1",
        settings={"precision": "fp32"} | K2 | values,
        tests=tests,
    )


def _seeds(num_envs: int) -> Case:
    return Case(
        name=f"train.k_mappo/2s3z/four seeds/{num_envs} envs",
        metric="env_sps",
        unit="env steps/s",
        run=partial(seeds_at_once, "smax/2s3z", 4, {"num_envs": num_envs}),
        reference="one by one",
        settings={"preset": "jaxmarl", "levels": 2, "precision": "fp32", "num_envs": num_envs},
        tests=("tests/test_seeds.py",),
    )
