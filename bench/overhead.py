"""What a level costs end to end: seconds an iteration at K = 1..5, ours and K-MAPPO as it is usually written.

All are measured by turns in one process. The usual implementation (bench/plain_mappo.py: autograd, an agent at a time,
deep copies) takes our rollout and as many minibatches as we do, of which one a turn is timed.
"""

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from bench.measure import Case, Samples
from bench.plain_mappo import PlainKMappo
from bench.update import first_minibatch
from kpg_fast.config import Config
from kpg_fast.k_mappo_trainer import KMappoTrainer

LEVELS = range(1, 6)
# With fewer games than the preset's where units are many: the shares are the same.
MAPS: dict[str, dict[str, int]] = {
    "2s3z": {},
    "3s5z_vs_3s6z": {},
    "10m_vs_11m": {"num_envs": 32},
    "27m_vs_30m": {"num_envs": 32},
}
TURNS = 3
TESTS = ("tests/test_k_mappo.py", "tests/bench/test_plain_mappo.py")


def cases(peers: str | None = None) -> list[Case]:
    """Every map and preset at every K."""
    return [
        Case(
            name=f"overhead.k_mappo/{name}/{preset}/K{levels}",
            metric="iteration",
            unit="s",
            run=partial(_of_level, name, preset, levels),
            reference="K1",
            higher_is_better=False,
            settings={"preset": preset, "levels": levels, "precision": "fp32", **values},
            tests=TESTS,
        )
        for preset in ("jaxmarl", "kpg")
        for name, values in MAPS.items()
        for levels in LEVELS
    ]


def _of_level(name: str, preset: str, levels: int) -> Samples:
    seconds = iterations(name, preset)
    return {"ours": seconds[f"K{levels}"], "plain": seconds[f"plain K{levels}"]} | {
        label: seconds[label] for label in ("K1", "plain K1")
    }


@cache
def iterations(name: str, preset: str) -> Samples:
    """Seconds an iteration, by contender: K1.. ours, plain K1.. the usual implementation."""
    contenders: dict[str, Callable[[], float]] = {}
    for levels in LEVELS:
        config = Config.make("k-mappo", f"smax/{name}", levels=levels, preset=preset, **MAPS[name])
        trainer = KMappoTrainer(config)
        contenders[f"K{levels}"] = partial(_seconds, trainer.update)
        contenders[f"plain K{levels}"] = _plain_iteration(trainer)
    for call in contenders.values():
        call()
    samples: Samples = {label: [] for label in contenders}
    for _ in range(TURNS):
        for label, call in contenders.items():
            samples[label].append(call())
    return samples


def _plain_iteration(trainer: KMappoTrainer) -> Callable[[], float]:
    s, plain = trainer.config.k_mappo, PlainKMappo(trainer)
    batch = first_minibatch(trainer).seed(0)

    def seconds() -> float:
        minibatch = _seconds(lambda: plain.update(batch))
        return _seconds(trainer.roll_out) + s.num_epochs * s.num_minibatches * minibatch

    return seconds


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
