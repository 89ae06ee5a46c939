"""Every Triton kernel on the card at hand, against what the card can do, in one call (gpu_training.py: all together).

    python -m bench.gpu [--out FILE]
    python -m bench.gpu --compile I N    # first the kernels of the I-th of N shares of the cases, by so many processes

Kernels run at the sizes of 2s3z with 4096 environments and 128 steps, one launch at a time, replayed from a CUDA graph.
Prints a table; FILE takes a JSON object a row. GB/s counts every argument of a launch once, TFLOP/s its products. The
ceilings are those of a copy of 4 GB and of a product of 8192 x 8192 matrices by cuBLAS.
"""

import argparse
import json
import statistics
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import triton

from bench import gpu_ahead, gpu_cases
from kpg_fast.runs import provenance

Row = dict[str, Any]


def seconds(start: Callable[[], Any], calls: int = 10, repeats: int = 7) -> float:
    """Median over repeats of the time of one call, from a captured graph of ``calls``."""
    start()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            start()
    taken: list[float] = []
    for _ in range(repeats + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end) * 1e-3 / calls)
    return statistics.median(taken[1:])


def ceilings() -> Iterator[Row]:
    """What the card reaches in a copy and in matrix products."""
    a = torch.zeros(2**30, device="cuda")
    b = torch.empty_like(a)
    yield {"name": "copy of 4 GB", "GB/s": 2 * a.nbytes / seconds(partial(b.copy_, a), 2) * 1e-9}
    n = 8192
    for name, dtype, tf32 in (
        ("bf16", torch.bfloat16, False),
        ("tf32", torch.float32, True),
        ("fp32", torch.float32, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        x = torch.randn(n, n, device="cuda", dtype=dtype)
        yield {
            "name": f"{name} product of {n} x {n}",
            "TFLOP/s": 2 * n**3 / seconds(partial(torch.matmul, x, x), 3) * 1e-12,
        }
    torch.backends.cuda.matmul.allow_tf32 = False


def operations(launch: gpu_ahead.Launch) -> int:
    """Floating-point operations of a launch's products; 0 for kernels that have none."""
    a = launch.arguments
    products = 0
    if launch.name == "linear.gpu._rows_kernel":
        products = launch.grid[2] * a["rows"] * a["depth"] * a["columns"]
    if launch.name == "linear.gpu._weights_kernel":
        products = launch.grid[2] * a["rows"] * a["ins"] * a["outs"]
    if launch.name.startswith("gru."):
        products = launch.grid[1] * a["steps"] * a["rows"] * 3 * a["HIDDEN"] ** 2
    return 2 * products


def target() -> int:
    """What kernels are chosen for here: 80 (Ampere), 90 (Hopper), ..."""
    return 10 * torch.cuda.get_device_capability()[0]


def compile_share(index: int, shares: int) -> None:
    """Compile every ``shares``-th case's launches, of tensors without memory, into Triton's cache on the disk."""
    for case, start in list(gpu_cases.CASES.items())[index::shares]:
        with gpu_ahead.recording(target()) as launches:
            start()
        for launch in launches:
            try:
                compiled = launch.kernel.warmup(*launch.arguments.values(), grid=launch.grid, **launch.options)
                assert compiled.run  # to ask for it compiles what launches the kernel, too
            except Exception:  # when it is measured, its row will say so
                traceback.print_exc()
        print(f"{case}: {len(launches)} launches", flush=True)


def measured(case: str, launch: gpu_ahead.Launch) -> Row:
    """The row of a launch; of one that fails with the error in place of numbers, since others may not."""
    row: Row = {"name": launch.name, "case": case}
    try:
        # by place: Triton has a keyword `stream` of its own, and some kernels a parameter
        time = seconds(partial(launch.kernel[launch.grid], *launch.arguments.values(), **launch.options))
    except Exception as error:
        traceback.print_exc()
        return row | {"error": repr(error)}
    tensors = {t.data_ptr(): t for t in launch.arguments.values() if isinstance(t, torch.Tensor)}
    row |= {"us": time * 1e6, "GB/s": sum(t.nbytes for t in tensors.values()) / time * 1e-9}
    return row | ({"TFLOP/s": operations(launch) / time * 1e-12} if operations(launch) else {})


def kernels() -> Iterator[Row]:
    """Each launch of every case, a case at a time: all their results together would fill the card."""
    gpu_cases.DEVICE = "cuda"
    for case, start in gpu_cases.CASES.items():
        with gpu_ahead.recording(target()) as launches:
            start()
        for launch in launches:
            yield measured(case, launch)
        launches.clear()


def _layer(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.relu_(torch.addmm(b, x, w))


def cublas() -> Iterator[Row]:
    """The products of the linear layer as torch does them: what its Triton kernels have to beat."""
    rows = gpu_cases.T * gpu_cases.E * gpu_cases.N
    flops = 2 * rows * 128 * 128
    for name, dtype, tf32 in (
        ("bf16", torch.bfloat16, False),
        ("tf32", torch.float32, True),
        ("fp32", torch.float32, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        x = torch.randn(rows, 128, device="cuda", dtype=dtype)
        w, b = torch.randn(128, 128, device="cuda", dtype=dtype), torch.randn(128, device="cuda", dtype=dtype)
        products = {
            "relu(x w + b)": partial(_layer, x, w, b),
            "x^T x": partial(torch.matmul, x.T, x),
        }
        for what, start in products.items():
            time = seconds(start)
            yield {
                "name": f"torch: {what}",
                "case": f"{name}, 128 x 128",
                "us": time * 1e6,
                "TFLOP/s": flops / time * 1e-12,
            }
    torch.backends.cuda.matmul.allow_tf32 = False


def main(argv: list[str] | None = None) -> int:
    """Measure all and print a row at a time; returns 1 if a launch failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="/dev/null", help="JSON lines go here too")
    parser.add_argument("--compile", nargs=2, type=int, metavar=("I", "N"), help="measure nothing, compile a share")
    args = parser.parse_args(argv)
    if args.compile:
        compile_share(*args.compile)
        return 0
    card = {"name": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton.__version__}
    card["commit"], failed = provenance.commit(), False
    with open(args.out, "w", buffering=1) as file:  # by lines, so that what is measured outlives a kill
        for part in ([card], ceilings(), cublas(), kernels()):
            for row in part:
                failed = failed or "error" in row
                cells = (f"{k} {v:,.4g}" if isinstance(v, float) else str(v) for k, v in row.items())
                print("  ".join(cells), flush=True)
                file.write(json.dumps(row) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
