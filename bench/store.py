"""The parameter store: slot copies, level steps, snapshot and restore, checkpoints.

Memory bounds all of it, so the references are memory's own speed: the C library's memcpy over large buffers with every
core, and copies that move as many bytes as the step reads and writes.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.measure import Bound, Case, Samples, in_turns, rates
from bench.peaks import BYTES, large_memcpy
from kpg_fast import k_level_step
from kpg_fast.kernels.level_step import level_step, state_names
from kpg_fast.store import checkpoint
from kpg_fast.store.module_snapshot import ModuleSnapshot
from kpg_fast.store.parameters import Layout, ParameterStore
from kpg_fast.store.snapshot import BackgroundCheckpoint

MB = 1 << 20
TESTS = ("tests/csrc/test_store.py", "tests/store/test_parameters.py")


def cases(peers: str | None = None) -> list[Case]:
    """Every case of this module; there is no peer to compare with."""
    found = [copy_case(size) for size in (1, 4, 16, 64, 256, 1024)]
    for optimizer in ("adam", "rmsprop"):
        for size in (1, 64, 256):
            found += [level_step_case(optimizer, size, committed) for committed in (False, True)]
    return [*found, snapshot_case(), checkpoint_case()]


def copy_case(megabytes: int) -> Case:
    """Copy a slot, against memcpy over buffers that no cache holds."""
    return Case(
        name=f"store.copy/{megabytes}MB",
        metric="bandwidth",
        unit="GB/s copied",
        run=lambda: _run_copy(megabytes * MB),
        reference="memcpy",
        bound=Bound.of_rate("memory", 2e9),
        settings={"slot_mb": megabytes, "memcpy_mb": BYTES // MB, "threads": torch.get_num_threads()},
        tests=TESTS,
    )


def level_step_case(optimizer: str, megabytes: int, committed: bool) -> Case:
    """One level step, clipped, against a copy that moves as many bytes."""
    kind, traffic = "commit" if committed else "lookahead", _step_traffic(optimizer, committed)
    return Case(
        name=f"store.level_step/{optimizer}/{kind}/{megabytes}MB",
        metric="time",
        unit="s",
        run=lambda: _run_level_step(optimizer, megabytes * MB, committed),
        reference="copy of as many bytes",
        higher_is_better=False,
        settings={"slot_mb": megabytes, "max_grad_norm": 0.5, "slots_moved": traffic},
        bound=Bound.of_time("memory", traffic * megabytes * MB, unit=1),
        tests=("tests/kernels/test_level_step.py",),
    )


def snapshot_case() -> Case:
    """Snapshot and restore, against a whole K = 2 step of which they are a part; the ratio is to be above 50."""
    return Case(
        name="store.snapshot_restore/actor",
        metric="time",
        unit="s",
        run=_run_snapshot,
        reference="k_level_step K=2",
        higher_is_better=False,
        settings={"actor": "127-128-relu-GRU128-128-relu-10", "rows": 160, "steps": 128, "optimizer": "torch Adam"},
        tests=("tests/test_k_level_step.py",),
    )


def checkpoint_case() -> Case:
    """How long training waits for a checkpoint that a thread writes, against one that it writes itself."""
    return Case(
        name="store.checkpoint_stall/64MB",
        metric="time",
        unit="s",
        run=_run_checkpoint,
        reference="slot copy",
        higher_is_better=False,
        settings={"slot_mb": 64},
        tests=("tests/store/test_snapshot.py", "tests/store/test_checkpoint.py"),
    )


def _store(nbytes: int, slots: list[str]) -> ParameterStore:
    store = ParameterStore(Layout({"w": (nbytes // 4,)}), 1, slots)
    for name in slots:
        store.slot(name).uniform_(1e-4, 1e-3)
    return store


def _run_copy(nbytes: int) -> Samples:
    store, calls = _store(nbytes, ["a", "b"]), max(1, BYTES // nbytes)

    def copies() -> None:
        for _ in range(calls):
            store.copy("a", "b")

    seconds = in_turns({"ours": copies, "memcpy": large_memcpy()}, repeats=15)
    done = {"ours": calls * nbytes, "memcpy": BYTES}
    return {name: rates({name: samples}, done[name] / 1e9)[name] for name, samples in seconds.items()}


def _step_traffic(optimizer: str, committed: bool) -> int:
    """How many numbers a parameter's clipped step reads and writes: the gradient counts twice, once for its norm."""
    state = len(state_names(optimizer))
    return 3 + state + 1 + (state if committed else 0)


def _run_level_step(optimizer: str, nbytes: int, committed: bool) -> Samples:
    state = list(state_names(optimizer))
    store = _store(nbytes, ["theta", "grad", "level", *state])
    traffic = nbytes * _step_traffic(optimizer, committed)
    pair = _store(traffic // 2, ["a", "b"])
    theta, grad, moments = store.slot("theta"), store.slot("grad"), [store.slot(name) for name in state]
    out = theta if committed else store.slot("level")
    norm, calls = torch.empty(1), max(1, 64 * MB // nbytes)

    def step() -> None:
        level_step(
            *(theta, grad, moments, out, moments if committed else None),
            optimizer=optimizer,
            lr=1e-6,
            max_grad_norm=0.5,
            grad_norm=norm,
        )

    return in_turns({"ours": step, "copy of as many bytes": lambda: pair.copy("a", "b")}, 15, 2, calls)


class Actor(nn.Module):
    """JaxMARL's recurrent actor in plain torch."""

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.gru = nn.Linear(127, 128), nn.GRU(128, 128)
        self.middle, self.head = nn.Linear(128, 128), nn.Linear(128, 10)

    def forward(self, obs: Tensor) -> Tensor:
        """Log-probabilities [T, R, A] of observations [T, R, O]."""
        hidden, _ = self.gru(torch.relu(self.entry(obs)))
        log_probs: Tensor = self.head(torch.relu(self.middle(hidden))).log_softmax(-1)
        return log_probs


def _run_snapshot() -> Samples:
    torch.manual_seed(0)
    actor = Actor()
    optimizer = torch.optim.Adam(actor.parameters(), lr=1e-3)
    obs, action = torch.randn(128, 160, 127), torch.randint(10, (128, 160, 1))
    advantage = torch.randn(128, 160)

    def log_prob(modules: Any) -> Tensor:
        chosen: Tensor = modules(obs).gather(-1, action).squeeze(-1)
        return chosen

    old = log_prob(actor).detach()

    def loss(own: Any, others: Tensor | None, k: int) -> Tensor:
        log_ratio = log_prob(own) - old
        if others is not None:
            moved = (others - old).view(128, 32, 5)
            log_ratio = log_ratio + (moved.sum(-1, keepdim=True) - moved).flatten(1)
        ratio = log_ratio.exp()
        return -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()

    def step() -> None:
        k_level_step(actor, optimizer, loss, log_prob, 2)

    def snapshot_and_restore() -> None:
        ModuleSnapshot([actor], [optimizer]).restore()

    return in_turns({"ours": snapshot_and_restore, "k_level_step K=2": step}, repeats=15)


def _run_checkpoint() -> Samples:
    store, writer = _store(64 * MB, ["theta", "other"]), BackgroundCheckpoint()
    tensors = {"theta": store.slot("theta")}
    seconds: Samples = {"ours": [], "slot copy": [], "checkpoint.save": []}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        contenders: dict[str, Callable[[], Any]] = {
            "ours": lambda: writer.start(Path(folder) / "thread", tensors, {}),
            "slot copy": lambda: store.copy("theta", "other"),
            "checkpoint.save": lambda: checkpoint.save(Path(folder) / "here", tensors, {}),
        }
        for repeat in range(7):
            for name, contender in contenders.items():
                start = time.perf_counter()
                contender()
                if repeat:
                    seconds[name].append(time.perf_counter() - start)
                writer.wait()
    return seconds
