"""Where a card's time goes in an iteration of K-MAPPO: by kernel, and by phase.

    python -m bench.gpu_profile [--num-envs N] [--out FILE]

JaxMARL's setting on 2s3z at K = 2. Kernels are those of a replayed iteration, as training runs it. Phases are those of
an iteration queued one operation at a time, with a wait for the card at every bound: critic and levels take turns here.
"""

import argparse
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bench.gpu_training import alone, built
from kpg_fast.k_mappo_trainer import KMappoTrainer

ROWS = 30
REST = "the rest: gathered minibatches, metrics"
_PHASE = "phase: "


class Span(NamedTuple):
    """Something that took time, in microseconds of the profiler's clock."""

    name: str
    begin: float
    end: float


def spans(events: Iterable[Any]) -> tuple[list[Span], list[Span]]:
    """The profiler's kernels and copies on the card, and the phases on the host."""
    on_card, phases = [], []
    for event in events:
        span = Span(event.name, event.time_range.start, event.time_range.end)
        is_phase = event.name.startswith(_PHASE)  # the card has them too, from the first to the last kernel of each
        if event.device_type.name == "CUDA" and not is_phase:
            on_card.append(span)
        elif event.device_type.name == "CPU" and is_phase:
            phases.append(span)
    return on_card, sorted(phases, key=lambda span: span.begin)


def by_kernel(on_card: list[Span]) -> Iterator[str]:
    """A line a kernel, those that take most time first."""
    taken: dict[str, list[float]] = defaultdict(list)
    for span in on_card:
        taken[span.name].append(span.end - span.begin)
    total = sum(map(sum, taken.values()))
    first, last = (pick((edge for _, *edges in on_card for edge in edges), default=0.0) for pick in (min, max))
    kinds = sorted(taken.items(), key=lambda item: -sum(item[1]))
    yield f"an iteration of {(last - first) * 1e-3:.2f} ms: {total * 1e-3:.2f} ms of kernels, {len(kinds)} kinds"
    yield f"{'ms':>9} {'share':>6} {'calls':>7} {'us each':>9}  kernel"
    for name, times in kinds[:ROWS]:
        ms, calls = sum(times) * 1e-3, len(times)
        yield f"{ms:9.3f} {sum(times) / total:6.1%} {calls:7d} {1e3 * ms / calls:9.2f}  {name[:90]}"


def by_phase(on_card: list[Span], phases: list[Span]) -> Iterator[str]:
    """A line a phase: what its kernels take, and how long the host is in it, queueing and waiting."""
    begins = [phase.begin for phase in phases]
    card: dict[str, float] = defaultdict(float)
    host: dict[str, float] = defaultdict(float)
    for phase in phases:
        host[phase.name.removeprefix(_PHASE)] += phase.end - phase.begin
    for span in on_card:
        index = bisect_right(begins, span.begin) - 1
        within = index >= 0 and span.begin <= phases[index].end
        card[phases[index].name.removeprefix(_PHASE) if within else REST] += span.end - span.begin
    total = sum(card.values())
    yield f"phases of an iteration: {total * 1e-3:.2f} ms of kernels"
    yield f"{'card ms':>9} {'share':>6} {'host ms':>9}  phase"
    for name, us in sorted(card.items(), key=lambda item: -item[1]):
        yield f"{us * 1e-3:9.3f} {us / total:6.1%} {host[name] * 1e-3:9.3f}  {name}"


def mark_phases(trainer: KMappoTrainer) -> None:
    """Let the profiler see where each phase begins and ends; what is queued in one is done before the next."""
    places: list[tuple[Any, str, str]] = [
        (trainer.env, "step", "rollout: environment"),
        (trainer.actor, "act", "rollout: policy"),
        (trainer, "whole_batch", "values and advantages"),
        (trainer.algorithm, "update_actor", "actors' levels"),
        (trainer.algorithm, "update_critic", "critic"),
    ]
    for owner, method, phase in places:
        setattr(owner, method, _marked(phase, getattr(owner, method)))


def _marked(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def in_phase(*args: Any, **kwargs: Any) -> Any:
        torch.cuda.synchronize()
        with record_function(_PHASE + phase):
            result = function(*args, **kwargs)
            torch.cuda.synchronize()
        return result

    return in_phase


@alone
def profiled(num_envs: int, graphs: bool) -> tuple[list[Span], list[Span]]:
    """Spans of an iteration after those that compile and capture; with phases where there are no graphs."""
    with closing(built(num_envs, graphs=graphs)) as trainer:
        if not graphs:
            mark_phases(trainer)
        for _ in range(3):
            trainer.update_all()
        torch.cuda.synchronize()
        # of replayed graphs the host's side shows nothing
        activities = [ProfilerActivity.CUDA] if graphs else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        with profile(activities=activities) as profiler:
            trainer.update_all()
            torch.cuda.synchronize()
        return spans(profiler.events())


def main() -> None:
    """Write both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num-envs", type=int, default=4096)
    parser.add_argument("--out", type=Path, default=Path("/dev/null"), help="the tables go here, too")
    args = parser.parse_args()
    with args.out.open("w", buffering=1) as file:
        for graphs in (True, False):
            on_card, phases = profiled(args.num_envs, graphs)
            table = by_kernel(on_card) if graphs else by_phase(on_card, phases)
            for line in table:
                print(line, flush=True)
                file.write(line + "\n")


if __name__ == "__main__":
    main()
