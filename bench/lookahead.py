"""How faithful a cheaper lookahead is: the correction theta^(K) - theta^(1) it makes, against the exact one.

The correction is all that K levels add to the base algorithm, and a small part of the step: theta^(K) itself would
look right whatever the lookahead did. K = 1 leaves it out: cosine 0, relative error 1.

    python bench/lookahead.py --env smax/2s3z --total-steps 1000000

trains K = 2 with the learning rate annealed, stops early, in the middle and late, and prints for the first, a middle
and the last minibatch of that update what each lookahead makes of the correction, and what a level of it costs.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.update import first_minibatch
from kpg_fast.config import Config
from kpg_fast.k_mappo import KMappo
from kpg_fast.k_mappo_trainer import KMappoTrainer, build_actor
from kpg_fast.minibatch import Minibatch
from kpg_fast.rollout import map_tensors


@dataclass(frozen=True)
class Fidelity:
    """A correction beside the exact one."""

    cosine: float
    relative_error: float


def correction(trainer: KMappoTrainer, batch: Minibatch, lr: float, dtype: torch.dtype, **values: Any) -> Tensor:
    """theta^(K) less what K = 1 would commit, [G, P] as float64, from the trainer's theta and optimiser, which stay.

    Args:
        trainer: where theta, the optimiser and K come from.
        batch: the minibatch, in float32.
        lr: learning rate of the step.
        dtype: in which everything is computed; float64 is exact.
        values: settings that differ from the trainer's.
    """
    k, one = (committed(trainer, batch, lr, dtype, **(values | levels)) for levels in ({}, {"levels": 1}))
    return k - one


def committed(trainer: KMappoTrainer, batch: Minibatch, lr: float, dtype: torch.dtype, **values: Any) -> Tensor:
    """theta^(K) [G, P] as float64; arguments as of :func:`correction`."""
    given = {f.name: getattr(trainer.config.settings, f.name) for f in fields(trainer.config.settings)}
    own = {"levels": trainer.config.levels, "preset": trainer.config.preset}
    config = Config.make("k-mappo", trainer.config.env, **(given | own | values))
    actor, learner = build_actor(config, trainer.env.spec, dtype), trainer.actor.learner
    for slot in ("theta", *learner.moments):
        actor.learner.store.slot(slot).copy_(learner.store.slot(slot))
    actor.learner.steps, actor.learner.lr, actor.norm = learner.steps, lr, trainer.actor.norm
    KMappo(config, actor, trainer.critic).update_actor(converted(batch, dtype))
    return actor.learner.store.slot("theta").double()


def converted(batch: Minibatch, dtype: torch.dtype) -> Minibatch:
    """The minibatch with real numbers in ``dtype``."""

    def convert(x: Tensor) -> Tensor:
        return x.to(dtype) if x.is_floating_point() else x

    return replace(map_tensors(batch, convert), data=map_tensors(batch.data, convert))


def compare(ours: Tensor, exact: Tensor) -> Fidelity:
    """Cosine and relative error over all parameters."""
    cosine = torch.cosine_similarity(ours.flatten(), exact.flatten(), dim=0)
    return Fidelity(float(cosine), float((ours - exact).norm() / exact.norm()))


# What is compared; settings beside those of the run.
MIXED = {"precision": "mixed-lookahead"}
LOOKAHEADS: dict[str, dict[str, Any]] = {
    "float32": {},
    "mixed-lookahead": MIXED,
    "bf16 throughout": {"precision": "bf16"},
    **{f"mixed, 1/{n} of the environments": MIXED | {"lookahead_share": 1 / n} for n in (2, 4, 8)},
    **{f"mixed, windows of {n} steps": MIXED | {"lookahead_window": n} for n in (32, 8)},
    "mixed, 1/4 of the windows of 32 steps": MIXED | {"lookahead_share": 1 / 4, "lookahead_window": 32},
    "joint ratio, no lookahead": {"levels": 1, "level1_others": "current"},
}


def fidelities(trainer: KMappoTrainer, visited: tuple[int, ...]) -> dict[str, list[Fidelity]]:
    """Train for one update; every lookahead's fidelity at the ``visited`` minibatches, counted over all epochs."""
    found: dict[str, list[Fidelity]] = {name: [] for name in LOOKAHEADS}
    update, count = trainer.algorithm.update, 0

    def watched(batch: Minibatch) -> dict[str, Any]:
        nonlocal count
        if count in visited:
            rate = trainer.actor.learner.lr
            exact = correction(trainer, batch, rate, torch.float64)
            base = committed(trainer, batch, rate, torch.float32, levels=1)
            for name, values in LOOKAHEADS.items():
                if values.get("precision") == "bf16":
                    ours = correction(trainer, batch, rate, torch.float32, **values)
                else:
                    ours = committed(trainer, batch, rate, torch.float32, **values) - base
                found[name].append(compare(ours, exact))
        count += 1
        return update(batch)

    trainer.algorithm.update = watched  # type: ignore[method-assign]
    trainer.update()
    trainer.algorithm.update = update  # type: ignore[method-assign]
    return found


def costs(trainer: KMappoTrainer, repeats: int) -> dict[str, float]:
    """Milliseconds an update of one minibatch takes, actors and critic; every lookahead by turns, median."""
    batch = first_minibatch(trainer)
    contenders: dict[str, dict[str, Any]] = {"K = 1": {"levels": 1}, "K = 1, bf16": {"levels": 1, "precision": "bf16"}}
    contenders |= LOOKAHEADS
    algorithms = {}
    for name, values in contenders.items():
        own: dict[str, Any] = {"levels": 2, "preset": trainer.config.preset, **values}
        algorithms[name] = KMappoTrainer(Config.make("k-mappo", trainer.config.env, **own)).algorithm
        algorithms[name].update(batch)
    samples: dict[str, list[float]] = {name: [] for name in algorithms}
    for _ in range(repeats):
        for name, algorithm in algorithms.items():
            start = time.perf_counter()
            algorithm.update(batch)
            samples[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="What cheaper lookaheads keep of the correction, and what they cost.")
    parser.add_argument("--env", default="smax/2s3z")
    parser.add_argument("--preset", default="jaxmarl")
    parser.add_argument("--total-steps", type=int, default=1_000_000)
    parser.add_argument("--stages", type=float, nargs="*", default=(0.03, 0.5, 0.95), help="shares of the run")
    parser.add_argument("--repeats", type=int, default=9, help="timings of each lookahead; 0 measures no costs")
    args = parser.parse_args()
    config = Config.make("k-mappo", args.env, levels=2, preset=args.preset, total_steps=args.total_steps)
    trainer = KMappoTrainer(config)
    if args.repeats:
        measured = costs(trainer, args.repeats)
        base = {True: measured["K = 1, bf16"], False: measured["K = 1"]}
        for name, ms in measured.items():
            more = ms / base["bf16" in name] - 1
            print(f"| {name} | {ms:.1f} ms | {more:+.0%} |", flush=True)
        trainer = KMappoTrainer(config)
    metrics: dict[str, float] = {}
    count = config.k_mappo.num_epochs * config.k_mappo.num_minibatches
    for stage in args.stages:
        while trainer.updates < int(stage * trainer.num_updates):
            metrics = trainer.update()
        found = fidelities(trainer, (0, count // 2, count - 1))
        print(f"\nupdate {trainer.updates} of {trainer.num_updates}, win rate {metrics.get('win_rate', 0):.2f}")
        for name, values in found.items():
            print(
                f"| {name} | " + " | ".join(f"{f.cosine:.4f} / {f.relative_error:.4f}" for f in values) + " |",
                flush=True,
            )


if __name__ == "__main__":
    main()
