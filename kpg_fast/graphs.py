"""Work that a card repeats: captured once and replayed, and on two streams where parts do not wait for each other."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
Capture = Callable[[Callable[[], T]], tuple[T, Callable[[], None]]]


def cuda_graph(work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
    """Capture what ``work`` queues, without doing it; returns its result and a function that does it."""
    gc.collect()  # or what is found in the middle of it would give its graphs, events and pinned memory back there
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return result, graph.replay


class Replayed(Generic[T]):
    """A function whose work on the device is the same at every call.

    The first call is an ordinary one: kernels are compiled, memory that stays is made. The second captures, and it and
    all later ones replay. Whatever changes from call to call must lie in tensors that ``work`` reads, and what lasts
    in tensors that it writes; Python runs only twice. The result is the same object from the second call on.

    Args:
        work: the function.
        capture: how; None calls ``work`` every time.
    """

    def __init__(self, work: Callable[[], T], capture: Capture[T] | None) -> None:
        self._work, self._capture = work, capture
        self._called = False
        self._captured: tuple[T, Callable[[], None]] | None = None

    def __call__(self) -> T:
        """Do the work."""
        if self._capture is None or not self._called:
            self._called = True
            return self._work()
        if self._captured is None:
            self._captured = self._capture(self._work)
        result, replay = self._captured
        replay()
        return result


class Beside:
    """A second stream for what does not depend on the work that follows; on a CPU it is done in turn."""

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda" and torch.cuda.is_available():
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @contextmanager
    def fork(self) -> Iterator[None]:
        """Queue what is inside beside the current stream, after all that is queued there already."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield

    def join(self) -> None:
        """Let the current stream wait for it. Only then may tensors that both use be dropped or written again."""
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
