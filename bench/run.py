"""The one benchmark command: measure cases, print one table, append the rows to bench/results/.

    python bench/run.py [-f REGEX] [--device cuda] [--base GITREF] [--json FILE] [--check RATIO] [--peers [CHECKOUT]]
                        [--quick]

Tests of what is timed run first and must be green. Contenders of a case take turns in one run; a warm-up is thrown
away; medians and 20-80 percentiles are printed, and the share of the machine's peak where one limits the case, measured
right beside it. What a level costs (overhead) has a table and a figure of its own. ``--base main~1`` measures that
commit as well, A B A B, and ``--check 1.10`` exits with 1 if a case is that much worse than it was there (or than its
own reference where a case says so); ratios are only ever taken within one run.
"""

import argparse
import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 170  # of the table in a file or a pipe
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from bench import overhead_report  # noqa: E402
from bench.measure import Case, Row, rows_of  # noqa: E402
from bench.peaks import peak  # noqa: E402
from kpg_fast.errors import UsageError  # noqa: E402

MODULES = {
    "cpu": (
        *("smax_step", "ops", "update", "training", "race", "overhead"),
        *("store", "mamujoco_step", "off_policy", "smac_step"),
    ),
    "cuda": ("gpu_training",),
}


def find_cases(pattern: str, quick: bool, peers: str | None, device: str = "cpu") -> list[Case]:
    """Every case whose name matches; modules that need what is not there are named and left out."""
    found: list[Case] = []
    for name in MODULES[device]:
        if not (ROOT / "bench" / f"{name}.py").exists():
            continue
        try:
            module = importlib.import_module(f"bench.{name}")
            found += module.cases(peers=peers)
        except UsageError as error:
            print(f"left out {name}: {error}", file=sys.stderr)
    return [case for case in found if re.search(pattern, case.name) and (case.quick or not quick)]


def run_tests(cases: list[Case]) -> None:
    """Stop unless the tests of these cases are green."""
    paths = sorted({path for case in cases for path in case.tests})
    if not paths:
        return
    print(f"tests first: {' '.join(paths)}", flush=True)
    result = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", *paths], cwd=ROOT)
    if result.returncode:
        sys.exit("a test is red: nothing is timed")


def measure(cases: list[Case], path: Path, console: Console) -> list[Row]:
    """Run the cases one after another; what is measured is kept at once."""
    rows = []
    for index, case in enumerate(cases):
        console.print(f"[{index + 1}/{len(cases)}] {case.name}", highlight=False)
        before = peak(case.bound.peak) if case.bound else 0.0
        samples = case.run()
        after = peak(case.bound.peak) if case.bound else 0.0
        new = rows_of(case, samples, max(before, after))
        append(new, path)
        rows += new
    return rows


def show(rows: list[Row], console: Console) -> None:
    """Print one table."""
    table = Table()
    for heading in ("case", "metric", "median", "p20", "p80", "unit", "ratio", "against", "of peak"):
        text = heading in ("case", "metric", "unit", "against")
        # folded: a name that is cut off is no name
        table.add_column(heading, justify="left" if text else "right", overflow="fold")
    for row in rows:
        numbers = (f"{value:,.4g}" for value in (row.median, row.p20, row.p80))
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}x"
        share = f"{row.settings['share_of_peak']:.0%} {row.settings['peak']}" if "peak" in row.settings else ""
        table.add_row(row.case, row.metric, *numbers, row.unit, ratio, row.reference, share)
    console.print(table)


def show_overhead(path: Path, console: Console) -> None:
    """Print what a level costs, of all such rows in ``path``, and draw it beside them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = overhead_report.by_setting(map(json.loads, lines))
    console.print(overhead_report.table(found))
    figure = path.with_name("level_overhead.png")
    overhead_report.draw(found, figure)
    console.print(f"figure: {figure}", highlight=False)


def append(rows: list[Row], path: Path) -> None:
    """Add rows to a file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row.to_dict()) + "\n" for row in rows)


def against_base(ref: str, arguments: list[str], turns: int = 2) -> dict[str, list[tuple[float, float]]]:
    """Measure this tree and the commit ``ref`` by turns; returns (ours, base) medians by case."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "base"
        subprocess.run(["git", "worktree", "add", "--detach", str(tree), ref], cwd=ROOT, check=True)
        try:
            build = [sys.executable, "setup.py", "build_ext", "--inplace"]
            subprocess.run(build, cwd=tree, check=True, stdout=subprocess.DEVNULL)
            for turn in range(turns):
                ours, base = (_medians(root, arguments, Path(folder) / f"{turn}.json") for root in (ROOT, tree))
                for case in ours.keys() & base.keys():
                    pairs.setdefault(case, []).append((ours[case], base[case]))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)
    return pairs


def _medians(root: Path, arguments: list[str], output: Path) -> dict[str, float]:
    output.unlink(missing_ok=True)
    command = [sys.executable, str(root / "bench" / "run.py"), "--json", str(output), "--no-tests", *arguments]
    subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL, env=_environment(root))
    lines = output.read_text(encoding="utf-8").splitlines()
    return {row["case"]: row["median"] for row in map(json.loads, lines) if "#" not in row["case"]}


def _environment(root: Path) -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": str(root)}


def worse_than(
    rows: list[Row], cases: list[Case], pairs: dict[str, list[tuple[float, float]]], limit: float
) -> list[str]:
    """What has become worse by more than ``limit``: against the base where it was measured, else the reference."""
    better_up = {case.name: case.higher_is_better for case in cases}
    complaints = []
    for row in rows:
        if row.case not in better_up:
            continue
        if row.case in pairs:
            factors = [b / a if better_up[row.case] else a / b for a, b in pairs[row.case]]
            factor = sorted(factors)[len(factors) // 2]
            against = "the base"
        elif row.ratio is not None:
            factor, against = 1 / row.ratio, row.reference
        else:
            continue
        if factor > limit:
            complaints.append(f"{row.case}: {factor:.2f} times worse than {against}, allowed {limit:.2f}")
    return complaints


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-f", "--filter", default="", metavar="REGEX", help="only cases whose name matches")
    parser.add_argument("--device", choices=list(MODULES), default="cpu", help="what is measured")
    parser.add_argument("--base", metavar="GITREF", help="measure this commit as well, by turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here, not to bench/results/")
    parser.add_argument("--check", type=float, metavar="RATIO", help="exit with 1 where a case is worse by this ratio")
    parser.add_argument("--peers", nargs="?", const="", metavar="CHECKOUT", help="JaxMARL side by side")
    parser.add_argument("--quick", action="store_true", help="only the short cases")
    parser.add_argument("--no-tests", action="store_true", help="trust that the tests are green")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args, console = parse(argv), Console(width=None if sys.stdout.isatty() else WIDTH)
    cases = find_cases(args.filter, args.quick, args.peers, args.device)
    if args.list:
        print("\n".join(case.name for case in cases))
        return 0
    if not cases:
        print(f"no case matches {args.filter!r}; --list prints their names", file=sys.stderr)
        return 2
    if not args.no_tests:
        run_tests(cases)
    path = args.json or ROOT / "bench" / "results" / "rows.jsonl"
    rows = measure(cases, path, console)
    show(rows, console)
    if any(row.case.startswith(overhead_report.PREFIX) for row in rows):
        show_overhead(path, console)
    pairs: dict[str, Any] = {}
    if args.base:
        same = ["-f", args.filter, "--device", args.device]
        pairs = against_base(args.base, same + (["--quick"] if args.quick else []))
        for case, values in sorted(pairs.items()):
            console.print(case, "ours / base:", ", ".join(f"{a:.4g} / {b:.4g}" for a, b in values), highlight=False)
    complaints = worse_than(rows, cases, pairs, args.check) if args.check else []
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
