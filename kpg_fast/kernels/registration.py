"""How an op becomes known to torch: by the functions of one name in its ``cpu.py`` and its ``gpu.py``."""

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

import torch


def define_op(name: str, on_cpu: Callable[..., Any], shapes: Callable[..., Any]) -> Any:
    """Define ``kpg_fast::name`` and return it, a ``torch.library.CustomOpDef``.

    Args:
        name: of the op.
        on_cpu: the function of the op's ``cpu.py``; its annotations are the op's schema. Tensors on a GPU go to the
            function of the same name in the ``gpu.py`` beside it, which is imported then, because it needs Triton.
        shapes: takes the same arguments, returns empty tensors like the op's results (for tracing).
    """
    package = on_cpu.__module__.removesuffix(".cpu")

    def run(file: str, args: tuple[Any, ...]) -> Any:
        return getattr(import_module(f"{package}.{file}"), on_cpu.__name__)(*args)

    @wraps(on_cpu)
    def run_on_cpu(*args: Any) -> Any:
        return run("cpu", args)

    op = torch.library.custom_op(f"kpg_fast::{name}", run_on_cpu, mutates_args=(), device_types="cpu")
    op.register_kernel("cuda", lambda *args: run("gpu", args))
    op.register_fake(shapes)
    return op
