"""Where the seconds of an update go."""

from collections import defaultdict
from time import perf_counter


class Stopwatch:
    """Seconds by name, from lap to lap; none if not ``on``, where a card works by itself and a clock says nothing."""

    def __init__(self, on: bool = True) -> None:
        self.on = on
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = 0.0

    def start(self) -> None:
        """Begin the first lap."""
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        """End a lap and begin the next."""
        if self.on:
            now = perf_counter()
            self.seconds[name] += now - self._last
            self._last = now

    def read(self) -> dict[str, float]:
        """The seconds since the last reading, as metrics."""
        seconds, self.seconds = self.seconds, defaultdict(float)
        return {f"time/{name}": value for name, value in seconds.items()}
