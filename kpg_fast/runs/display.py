"""The progress of a run on a terminal."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kpg_fast.runs.progress import Silent
from kpg_fast.trainer import Trainer


class Display(Silent):
    """A bar and a table that stay in place on a terminal."""

    def __init__(self) -> None:
        self.live = Live(console=Console(), auto_refresh=False)

    def __enter__(self) -> "Display":
        self.live.start()
        return self

    def begin(self, trainer: Trainer, run_dir: Path, seeds: Sequence[int] = ()) -> None:
        """See :class:`Progress`."""
        super().begin(trainer, run_dir, seeds)
        self.note(f"{self.status.title}, run directory {run_dir}")

    def update(self, metrics: dict[str, float]) -> None:
        """See :class:`Progress`."""
        warning = self.status.add(metrics)
        if warning:
            self.note(f"warning: {warning}")
        cells = self.status.cells(metrics)
        split = Text(cells.pop("time", ""), style="dim")
        names, values = list(cells), list(cells.values())
        table = Table.grid(padding=(0, 2))
        for row in range(0, len(cells), 4):  # four pairs a row fit 80 columns
            pairs = zip(names[row : row + 4], values[row : row + 4], strict=True)
            table.add_row(*(text for name, value in pairs for text in (f"[dim]{name}", value)))
        bar = ProgressBar(total=self.status.num_updates, completed=int(metrics["update"]))
        line_end = Text("")  # the bar brings none
        self.live.update(Group(bar, line_end, table, split), refresh=True)

    def note(self, text: str) -> None:
        """See :class:`Progress`."""
        self.live.console.print(text, highlight=False, markup=False)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()
