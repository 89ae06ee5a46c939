"""Training on a card, end to end: levels, graphs, seeds, a level beside a plain implementation, SMAX alone.

    python bench/run.py --device cuda            # as every other case
    python -m bench.gpu_training --out FILE      # the same rows, each written as soon as it is measured

JaxMARL's setting on 2s3z (GRU of 128 units, 128 steps, 4 epochs of 4 minibatches), tf32 products and bf16 lookahead. An
update is timed from its call to its metrics; the first two, which compile and capture, are thrown away. The off-policy
algorithms have the sizes of bench/off_policy.py; 50 updates and the reading of their metrics are timed together.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from bench.measure import Case, Samples, rows_of
from bench.off_policy import parts
from bench.plain_mappo import PlainKMappo
from bench.update import first_minibatch
from kpg_fast.config import Config
from kpg_fast.envs import StepArrays, make
from kpg_fast.graphs import cuda_graph
from kpg_fast.k_mappo_trainer import KMappoTrainer
from kpg_fast.off_policy.learning import OnDevice
from kpg_fast.place import Place, place_of
from kpg_fast.rollout import Rollout

UPDATES = 5
OFF_POLICY_UPDATES = 50
TESTS = ("tests/gpu/test_training.py", "tests/gpu/test_off_policy.py")


def built(num_envs: int = 4096, levels: int = 2, seeds: int = 1, **values: Any) -> KMappoTrainer:
    """A trainer on the card."""
    own = {"device": "cuda", "precision": "tf32", "num_envs": num_envs, "total_steps": 10**9} | values
    return KMappoTrainer(Config.make("k-mappo", "smax/2s3z", levels=levels, **own), seeds=range(seeds))


def rate(updates: int = UPDATES, seeds: int = 1, **values: Any) -> list[float]:
    """Environment steps a second, of all seeds together, update by update."""
    trainer = built(seeds=seeds, **values)
    s = trainer.config.k_mappo
    found = []
    for update in range(updates + 2):
        begin = time.perf_counter()
        trainer.update_all()
        if update > 1:
            found.append(seeds * s.num_envs * s.num_steps / (time.perf_counter() - begin))
    return found


def training(contenders: dict[str, dict[str, Any]]) -> Samples:
    """Rates of some settings, one after another: each has the card to itself."""
    return {name: rate(**values) for name, values in contenders.items()}


def split(num_envs: int) -> Samples:
    """Milliseconds of the two parts of an update on the card: learning, and the rollout."""
    trainer = built(num_envs)
    samples: Samples = {"ours": [], "rollout": []}
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


def one_minibatch(levels: int) -> Samples:
    """Milliseconds an eager update of one minibatch of 256 environments takes, separate actors, ours and the plain."""
    trainer = built(1024, levels, shared_actor=False, precision="fp32", graphs=False)
    batch = first_minibatch(trainer)
    plain, alone = PlainKMappo(trainer), batch.seed(0)
    samples: Samples = {"ours": [], "plain": []}
    for turn in range(UPDATES + 1):
        updates: dict[str, Callable[[], Any]] = {
            "ours": partial(trainer.algorithm.update, batch),
            "plain": partial(plain.update, alone),
        }
        for name, update in updates.items():
            torch.cuda.synchronize()
            begin = time.perf_counter()
            update()
            torch.cuda.synchronize()
            if turn:
                samples[name].append(1e3 * (time.perf_counter() - begin))
    return samples


def stepping(name: str = "smax/2s3z", num_envs: int = 65_536, steps: int = 100) -> Samples:
    """Environment steps a second with observations, states, masks and new episodes, random actions, all on the card."""
    env = make(name, num_envs, device="cuda")
    memory = Rollout.allocate(env.spec, 1, torch.device("cuda"))
    memory.begin(env)
    shape = (8, num_envs, env.spec.num_agents)
    actions = torch.randint(env.spec.num_actions, shape, dtype=torch.int32, device="cuda")
    out: StepArrays = memory.steps[0]
    found = []
    for repeat in range(6):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        for t in range(steps):
            env.step(actions[t % len(actions)], out)  # type: ignore[arg-type]  # on a card arrays are tensors
        end.record()
        end.synchronize()
        if repeat:
            found.append(num_envs * steps / (begin.elapsed_time(end) * 1e-3))
    return {"ours": found}


def off_policy(algorithm: str, batch_size: int, place: Place) -> Samples:
    """Milliseconds an update of two agents in HalfCheetah's sizes, K = 2: in a graph, without; and K = 1."""
    contenders = {"ours": (2, place), "no graphs": (2, replace(place, graphs=False)), "K1": (1, place)}
    samples: Samples = {}
    for name, (levels, where) in contenders.items():
        made, experience, generator = parts(algorithm, 2, batch_size, levels, place=where)
        learning = OnDevice(made, experience, generator, where, OFF_POLICY_UPDATES, cuda_graph)
        samples[name] = []
        for turn in range(UPDATES + 1):
            begin = time.perf_counter()
            learning.learn(OFF_POLICY_UPDATES, True, {"time/replay": 0.0})
            learning.read()
            if turn:
                samples[name].append(1e3 * (time.perf_counter() - begin) / OFF_POLICY_UPDATES)
    return samples


def cases(peers: str | None = None) -> list[Case]:
    """Everything, what matters most first; ``UsageError`` where there is no card."""
    card = place_of(Config.make("k-mappo", "smax/2s3z", device="cuda"))
    hosted = replace(card, hosted=True)
    case = partial(Case, metric="env_sps", unit="env steps/s", tests=TESTS)
    ms = partial(Case, unit="ms", higher_is_better=False, tests=TESTS)
    found = [case(name="cuda.smax_step/2s3z/65536", run=stepping)]
    for num_envs, reference in ((4096, "K1"), (512, "no graphs")):
        settings: dict[str, dict[str, Any]] = {"ours": {}, "K1": {"levels": 1}, "no graphs": {"graphs": False}}
        run = partial(training, {name: values | {"num_envs": num_envs} for name, values in settings.items()})
        found.append(case(name=f"cuda.train/2s3z/{num_envs}/K2", run=run, reference=reference))
    # ten runs one after another take as long as one, ten times: the rate is that of one
    seeds = {"ours": {"num_envs": 128, "seeds": 10}, "one by one": {"num_envs": 128}}
    found.append(case(name="cuda.train/2s3z/128/ten seeds", run=partial(training, seeds), reference="one by one"))
    found.append(ms(name="cuda.split/2s3z/4096/learn", metric="ms", run=partial(split, 4096)))
    for levels_ in (1, 2):
        name = f"cuda.update/2s3z/separate/K{levels_}"
        found.append(ms(name=name, metric="update_ms", run=partial(one_minibatch, levels_), reference="plain"))
    for algorithm, size in (("k-facmac", 100), ("k-facmac", 1024), ("k-maddpg", 1024)):
        run, name = partial(off_policy, algorithm, size, hosted), f"cuda.off_policy/{algorithm}/N2/B{size}/K2"
        found.append(ms(name=name, metric="update_ms", run=run, reference="no graphs"))
    return found


def main() -> None:
    """Measure one case after another; a line of JSON a row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="/dev/null", help="rows go here, too")
    with open(parser.parse_args().out, "w") as file:
        for case in cases():
            for row in rows_of(case, case.run()):
                line = json.dumps(row.to_dict())
                print(f"{row.case}: {row.median:,.4g} {row.unit}, ratio {row.ratio}", flush=True)
                file.write(line + "\n")
                file.flush()


if __name__ == "__main__":
    main()
