"""Frames to a file that a person can watch."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpg_fast.errors import UsageError

SUFFIXES = (".gif", ".mp4")


def check_target(path: Path) -> None:
    """Raise ``UsageError`` if no video can be written to ``path``, as far as can be told before there is one."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: a video ends with {' or '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path} cannot be written: {path.parent} is not a directory")
    if not find_spec("imageio"):
        raise UsageError("a video needs imageio: pip install 'kpg_fast[video]'")


def write_video(frames: Sequence[NDArray[np.uint8]], path: str | Path, fps: int = 8) -> None:
    """Write frames as a GIF or an MP4, aside first and renamed when whole.

    Args:
        frames: uint8 [H, W, 3] each, all of one size; H and W even for an MP4.
        path: ends with ``.gif`` or ``.mp4``.
        fps: frames a second.

    Raises:
        UsageError: no frame, another suffix, the extra ``video`` is not installed, or a path that cannot be written.
    """
    path = Path(path)
    check_target(path)
    if not frames:
        raise UsageError(f"{path}: there is no frame to write")
    import imageio.v3 as iio

    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    options = {"loop": 0, "duration": 1000 / fps} if path.suffix == ".gif" else {"fps": fps}
    try:
        iio.imwrite(aside, np.stack(frames), **options)
        aside.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)
