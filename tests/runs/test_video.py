import numpy as np
import pytest

from kpg_fast.errors import UsageError
from kpg_fast.runs.video import write_video

iio = pytest.importorskip("imageio.v3", reason="needs the extra video")

FRAMES = [np.full((32, 48, 3), value, np.uint8) for value in (0, 120, 240)]


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_frames_can_be_read_back(tmp_path, suffix):
    path = tmp_path / f"film.{suffix}"
    write_video(FRAMES, path)
    read = np.asarray(iio.imread(path))
    assert read.shape[-3:] == (32, 48, 3)
    assert [f.name for f in tmp_path.iterdir()] == [path.name]
    assert abs(float(read[-1].mean()) - 240) < 12


@pytest.mark.parametrize(
    ("frames", "name", "message"),
    [
        (FRAMES, "film.avi", "ends with"),
        ([], "film.gif", "no frame"),
        (FRAMES, "missing/film.gif", "cannot be written"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, frames, name, message):
    with pytest.raises(UsageError, match=message):
        write_video(frames, tmp_path / name)
    assert not list(tmp_path.iterdir())
