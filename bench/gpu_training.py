"""Training on a card, end to end: levels, graphs, seeds, a level beside a plain implementation, SMAX alone.

    python bench/run.py --device cuda                       # as every other case
    python -m bench.gpu_training [-f REGEX] [--out FILE]    # the same rows, each written as soon as it is measured

JaxMARL's setting on 2s3z (GRU of 128 units, 128 steps, 4 epochs of 4 minibatches), tf32 products and bf16 lookahead. An
update is timed from its call to its metrics; the first two, which compile and capture, are thrown away. The off-policy
algorithms have the sizes of bench/off_policy.py; 50 updates and the reading of their metrics are timed together.
"""

import argparse
import gc
import json
import re
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import torch

from bench.measure import Case, Samples, rows_of
from bench.off_policy import parts
from bench.plain_mappo import PlainKMappo
from bench.update import first_minibatch
from kpg_fast.config import Config
from kpg_fast.envs import StepArrays, make
from kpg_fast.graphs import Replayed, cuda_graph
from kpg_fast.k_mappo_trainer import KMappoTrainer
from kpg_fast.off_policy.learning import OnDevice
from kpg_fast.place import Place, place_of
from kpg_fast.rollout import Rollout

UPDATES = 5
OFF_POLICY_UPDATES = 50
TESTS = ("tests/gpu/test_training.py", "tests/gpu/test_off_policy.py")

P = ParamSpec("P")
R = TypeVar("R")


def alone(measure: Callable[P, R]) -> Callable[P, R]:
    """Let a measurement have all of the card's memory.

    Trainers are in reference cycles, so those of earlier measurements live until they are looked for: before the next
    one, when not even the traceback of one that failed holds them any more.
    """

    @wraps(measure)
    def measured(*args: P.args, **kwargs: P.kwargs) -> R:
        gc.collect()
        torch.cuda.empty_cache()
        return measure(*args, **kwargs)

    return measured


def built(num_envs: int = 4096, levels: int = 2, seeds: int = 1, **values: Any) -> KMappoTrainer:
    """A trainer on the card."""
    own = {"device": "cuda", "precision": "tf32", "num_envs": num_envs, "total_steps": 10**9} | values
    return KMappoTrainer(Config.make("k-mappo", "smax/2s3z", levels=levels, **own), seeds=range(seeds))


@alone
def rate(updates: int = UPDATES, seeds: int = 1, **values: Any) -> list[float]:
    """Environment steps a second, of all seeds together, update by update."""
    found = []
    with closing(built(seeds=seeds, **values)) as trainer:
        s = trainer.config.k_mappo
        for update in range(updates + 2):
            begin = time.perf_counter()
            trainer.update_all()
            if update > 1:
                found.append(seeds * s.num_envs * s.num_steps / (time.perf_counter() - begin))
    return found


def training(contenders: dict[str, dict[str, Any]]) -> Samples:
    """Rates of some settings, one after another: each has the card to itself."""
    return {name: rate(**values) for name, values in contenders.items()}


@alone
def split(num_envs: int) -> Samples:
    """Milliseconds of the two parts of an update on the card: learning, and the rollout."""
    samples: Samples = {"ours": [], "rollout": []}
    with closing(built(num_envs)) as trainer:
        for update in range(UPDATES + 2):
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(3)]  # type: ignore[no-untyped-call]
            marks[0].record()
            trainer.roll_out()
            marks[1].record()
            trainer.schedule.shuffle(trainer.generators)
            trainer._learn()
            marks[2].record()
            marks[2].synchronize()
            if update > 1:
                samples["rollout"].append(marks[0].elapsed_time(marks[1]))
                samples["ours"].append(marks[1].elapsed_time(marks[2]))
    return samples


@alone
def one_minibatch(levels: int, turns: int = 3) -> Samples:
    """Milliseconds an eager update of one minibatch of 256 environments takes, separate actors, ours and the plain."""
    samples: Samples = {"ours": [], "plain": []}
    with closing(built(1024, levels, shared_actor=False, precision="fp32", graphs=False)) as trainer:
        batch = first_minibatch(trainer)
        plain, one_seed = PlainKMappo(trainer), batch.seed(0)
        updates: dict[str, Callable[[], Any]] = {
            "ours": partial(trainer.algorithm.update, batch),
            "plain": partial(plain.update, one_seed),
        }
        for turn in range(turns + 1):
            for name, update in updates.items():
                torch.cuda.synchronize()
                begin = time.perf_counter()
                update()
                torch.cuda.synchronize()
                if turn:
                    samples[name].append(1e3 * (time.perf_counter() - begin))
    return samples


@alone
def stepping(name: str = "smax/2s3z", num_envs: int = 65_536, rounds: int = 16) -> Samples:
    """Environment steps a second with observations, states, masks and new episodes, random actions, all on the card.

    Eight steps are captured and replayed, as in training: the host takes longer to queue a step than the card to do it.
    """
    env = make(name, num_envs, device="cuda")
    memory = Rollout.allocate(env.spec, 1, torch.device("cuda"))
    memory.begin(env)
    shape = (8, num_envs, env.spec.num_agents)
    actions = torch.randint(env.spec.num_actions, shape, dtype=torch.int32, device="cuda")
    out: StepArrays = memory.steps[0]

    def steps() -> None:
        for action in actions:
            env.step(action, out)  # type: ignore[arg-type]  # on a card arrays are tensors

    samples: Samples = {}
    for contender, work in {"ours": Replayed(steps, cuda_graph), "no graphs": Replayed(steps, None)}.items():
        samples[contender] = []
        for repeat in range(UPDATES + 1):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            for _ in range(rounds):
                work()
            end.record()
            end.synchronize()
            if repeat:
                samples[contender].append(num_envs * len(actions) * rounds / (begin.elapsed_time(end) * 1e-3))
    return samples


def off_policy(algorithm: str, batch_size: int, place: Place) -> Samples:
    """Milliseconds an update of two agents in HalfCheetah's sizes, K = 2: in a graph, without; and K = 1."""
    contenders = {"ours": (2, place), "no graphs": (2, replace(place, graphs=False)), "K1": (1, place)}
    return {name: off_policy_update(algorithm, batch_size, *values) for name, values in contenders.items()}


@alone
def off_policy_update(algorithm: str, batch_size: int, levels: int, place: Place) -> list[float]:
    """Milliseconds of one of many updates."""
    made, experience, generator = parts(algorithm, 2, batch_size, levels, place=place)
    learning = OnDevice(made, experience, generator, place, OFF_POLICY_UPDATES, cuda_graph)
    found = []
    for turn in range(UPDATES + 1):
        begin = time.perf_counter()
        learning.learn(OFF_POLICY_UPDATES, True, {"time/replay": 0.0})
        learning.read()
        if turn:
            found.append(1e3 * (time.perf_counter() - begin) / OFF_POLICY_UPDATES)
    return found


def cases(peers: str | None = None) -> list[Case]:
    """Everything, what matters most first; ``UsageError`` where there is no card."""
    card = place_of(Config.make("k-mappo", "smax/2s3z", device="cuda"))
    hosted = replace(card, hosted=True)
    case = partial(Case, metric="env_sps", unit="env steps/s", tests=TESTS)
    ms = partial(Case, unit="ms", higher_is_better=False, tests=TESTS)
    found = [case(name="cuda.smax_step/2s3z/65536", run=stepping, reference="no graphs")]
    settings: dict[str, dict[str, Any]]
    for num_envs, reference, values in ((4096, "K1", {"levels": 1}), (512, "no graphs", {"graphs": False})):
        settings = {"ours": {"num_envs": num_envs}, reference: {"num_envs": num_envs, **values}}
        run = partial(training, settings)
        found.append(case(name=f"cuda.train/2s3z/{num_envs}/K2", run=run, reference=reference))
    # ten runs one after another take as long as one, ten times: the rate is that of one
    settings = {"ours": {"num_envs": 128, "seeds": 10}, "one by one": {"num_envs": 128}}
    found.append(case(name="cuda.train/2s3z/128/ten seeds", run=partial(training, settings), reference="one by one"))
    for levels in (1, 2):
        name = f"cuda.update/2s3z/separate/K{levels}"
        found.append(ms(name=name, metric="update_ms", run=partial(one_minibatch, levels), reference="plain"))
    found.append(ms(name="cuda.split/2s3z/4096/learn", metric="ms", run=partial(split, 4096)))
    for algorithm, size in (("k-facmac", 100), ("k-facmac", 1024), ("k-maddpg", 1024)):
        run, name = partial(off_policy, algorithm, size, hosted), f"cuda.off_policy/{algorithm}/N2/B{size}/K2"
        found.append(ms(name=name, metric="update_ms", run=run, reference="no graphs"))
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure one case after another, a line of JSON a row; returns 1 if one failed, which costs none of the others."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-f", "--filter", default="", metavar="REGEX", help="only cases whose name matches")
    parser.add_argument("--out", default="/dev/null", help="rows go here, too")
    args = parser.parse_args(argv)
    failed = False
    with open(args.out, "w", buffering=1) as file:  # by lines, so that what is measured outlives a kill
        for case in cases():
            if not re.search(args.filter, case.name):
                continue
            try:
                rows = rows_of(case, case.run())
            except Exception:
                traceback.print_exc()
                failed = True
                continue
            for row in rows:
                print(f"{row.case}: {row.median:,.4g} {row.unit}, ratio {row.ratio}", flush=True)
                file.write(json.dumps(row.to_dict()) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
