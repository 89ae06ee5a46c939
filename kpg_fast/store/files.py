"""Files that are whole or not there at all, and errors of the file system that a user can act on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kpg_fast.errors import UsageError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the file system while ``path`` is written into a ``UsageError`` that names the reason."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def write_aside(path: Path, text: str) -> None:
    """Write ``text`` to a file beside ``path`` and rename it: a reader sees the old file or the new one.

    Raises:
        UsageError: the file system refuses; ``path`` is as it was.
    """
    aside = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            with aside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
