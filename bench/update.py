"""The update of one minibatch at K = 1..5, against K-MAPPO as it is usually written (bench/plain_mappo.py)."""

from functools import partial
from typing import Any

import torch

from bench.flops import Training
from bench.measure import Bound, Case, Samples, in_turns
from bench.plain_mappo import PlainKMappo
from kpg_fast.config import Config
from kpg_fast.k_mappo_trainer import KMappoTrainer
from kpg_fast.minibatch import Minibatch

TESTS = ("tests/test_k_mappo.py", "tests/bench/test_plain_mappo.py")


def first_minibatch(trainer: KMappoTrainer) -> Minibatch:
    """The first minibatch of the trainer's next rollout."""
    trainer.roll_out()
    s = trainer.config.k_mappo
    samples = torch.arange(s.num_samples // s.num_minibatches, device=trainer.place.device)
    return trainer.whole_batch().select(samples[None], trainer.dtype)


def measure(env: str, values: dict[str, Any]) -> Samples:
    """Milliseconds an update of actors and critic, ours and the plain one by turns."""
    trainer = KMappoTrainer(Config.make("k-mappo", env, **values))
    batch, plain = first_minibatch(trainer), PlainKMappo(trainer)
    alone = batch.seed(0)
    contenders = {"ours": lambda: trainer.algorithm.update(batch), "plain": lambda: plain.update(alone)}
    seconds = in_turns(contenders, repeats=5, warmup=1)
    return {contender: [1e3 * s for s in samples] for contender, samples in seconds.items()}


def cases(peers: str | None = None) -> list[Case]:
    """Shared actor on 2s3z at every K, separate actors at two, and a small one for the check of every change."""
    settings = [{"levels": k, "shared_actor": True} for k in range(1, 6)]
    settings += [{"levels": k, "shared_actor": False} for k in (1, 2)]
    found = [
        _case(f"2s3z/{'shared' if s['shared_actor'] else 'separate'}/K{s['levels']}", "smax/2s3z", s) for s in settings
    ]
    small = {"levels": 2, "num_envs": 32, "num_steps": 32}
    return [*found, _case("3m/32x32/K2", "smax/3m", small, quick=True)]


def _case(name: str, env: str, values: dict[str, Any], quick: bool = False) -> Case:
    work = Training.of(Config.make("k-mappo", env, **values)).update()
    return Case(
        name=f"update.k_mappo/{name}",
        metric="update_ms",
        unit="ms",
        run=partial(measure, env, values),
        reference="plain",
        higher_is_better=False,
        settings={"preset": "jaxmarl", **values},
        tests=TESTS,
        quick=quick,
        bound=Bound.of_time("fp32", work),
    )
