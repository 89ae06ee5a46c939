"""What a benchmark case is, how it is timed, and the row it becomes."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from kpg_fast.runs import provenance

Samples = dict[str, list[float]]
PeakName = Literal["fp32", "bf16", "memory"]


@dataclass(frozen=True)
class Bound:
    """What limits a case: a peak (:mod:`bench.peaks`), and how the median becomes operations or bytes a second."""

    peak: PeakName
    rate: Callable[[float], float]

    @classmethod
    def of_time(cls, peak: PeakName, work: float, unit: float = 1e-3) -> "Bound":
        """For medians in units of ``unit`` seconds, each the time that ``work`` takes."""
        return cls(peak, lambda median: work / (median * unit))

    @classmethod
    def of_rate(cls, peak: PeakName, work: float) -> "Bound":
        """For medians that count pieces a second, each of ``work``."""
        return cls(peak, lambda median: median * work)


@dataclass(frozen=True)
class Case:
    """One line of the table: what is measured against what.

    ``run`` returns samples of ``metric`` by contender, ``"ours"`` among them, taken in turns in one process or in
    processes started by turns; ``reference`` names the contender that ``ratio`` compares ours with.
    """

    name: str
    metric: str
    unit: str
    run: Callable[[], Samples]
    reference: str = ""
    higher_is_better: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    tests: tuple[str, ...] = ()
    """Paths of tests that must be green before this is timed: no speed-up on red."""
    quick: bool = False
    """Short enough for the check of every change."""
    bound: Bound | None = None
    """What of the machine limits it."""


@dataclass(frozen=True)
class Row:
    """A result as it is stored, one JSON object a line."""

    case: str
    metric: str
    unit: str
    median: float
    p20: float
    p80: float
    reference: str
    ratio: float | None
    """How many times better than the reference (above 1: better), or ``None`` where there is none."""
    commit: str
    hardware: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def in_turns(
    contenders: dict[str, Callable[[], Any]], repeats: int = 9, warmup: int = 2, calls: int = 1
) -> dict[str, list[float]]:
    """Seconds per call of each contender, measured A B A B after a warm-up that is thrown away."""
    for contender in contenders.values():
        for _ in range(warmup):
            contender()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            start = time.perf_counter()
            for _ in range(calls):
                contender()
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def rates(seconds: dict[str, list[float]], work: float) -> Samples:
    """Turn seconds into ``work`` per second."""
    return {name: [work / s for s in samples] for name, samples in seconds.items()}


def rows_of(case: Case, samples: Samples, peak: float = 0.0) -> list[Row]:
    """One row for ours, and one for every contender, so that a table can be read without the code.

    Where the case has a bound, ``peak`` is what the machine could do beside it, and ours names its share of that.
    """
    return [_row(case, name, samples, peak) for name in sorted(samples, key=lambda name: name != "ours")]


def _row(case: Case, name: str, samples: Samples, peak: float) -> Row:
    ours = name == "ours"
    values = sorted(samples[name])
    settings = case.settings
    if ours and case.bound is not None:
        share = case.bound.rate(statistics.median(values)) / peak
        settings = settings | {"peak": case.bound.peak, "peak_per_second": peak, "share_of_peak": share}
    ratio = None
    if ours and case.reference in samples:
        ratio = statistics.median(samples[case.reference]) / statistics.median(values)
        ratio = 1 / ratio if case.higher_is_better else ratio
    return Row(
        case=case.name if ours else f"{case.name}#{name}",
        metric=case.metric,
        unit=case.unit,
        median=statistics.median(values),
        p20=_quantile(values, 0.2),
        p80=_quantile(values, 0.8),
        reference=case.reference if ours else "",
        ratio=ratio,
        commit=provenance.commit(),
        hardware=dict(provenance.hardware()),
        versions=provenance.versions(),
        settings=settings,
    )


def _quantile(values: list[float], q: float) -> float:
    position = q * (len(values) - 1)
    low = int(position)
    high = min(low + 1, len(values) - 1)
    return values[low] + (position - low) * (values[high] - values[low])
