"""The ring of rows, in memory and in a file."""

import numpy as np
import pytest
import torch

from kpg_fast.errors import UsageError
from kpg_fast.off_policy.replay_buffer import Columns, Ring


def rows(first: int, count: int, width: int = 3) -> torch.Tensor:
    return torch.arange(first, first + count)[:, None].expand(count, width).float().contiguous()


def held(ring: Ring) -> set[int]:
    sample = ring.take(ring.draw(2000, torch.Generator().manual_seed(0)))
    assert (sample == sample[:, :1]).all()
    return {int(value) for value in sample[:, 0]}


def test_columns_are_views_of_a_row():
    columns = Columns({"obs": (2, 3), "reward": (), "action": (2,)})
    assert columns.width == 9
    memory = torch.arange(18.0).view(2, 9)
    fields = columns.views(memory)
    assert fields["obs"].shape == (2, 2, 3)
    assert fields["reward"].tolist() == [6, 15]
    fields["action"][1, 0] = -1
    assert memory[1, 7] == -1


@pytest.mark.parametrize("in_file", [False, True])
def test_the_last_rows_are_kept(in_file, tmp_path):
    ring = Ring(10, 3, tmp_path / "ring" if in_file else None, spare=4 if in_file else 0)
    ring.add(rows(0, 4))
    assert len(ring) == 4
    assert held(ring) == {0, 1, 2, 3}
    for first in range(4, 52, 6):
        ring.add(rows(first, 6))
    assert len(ring) == 10
    assert held(ring) == set(range(42, 52))


def test_a_full_addition_wraps():
    ring = Ring(4, 1)
    ring.add(rows(0, 3, 1))
    ring.add(rows(3, 4, 1))
    assert held(ring) == {3, 4, 5, 6}


def test_samples_are_uniform_and_repeat_with_the_seed():
    ring = Ring(8, 1)
    ring.add(rows(0, 8, 1))
    draws = [ring.take(ring.draw(8000, torch.Generator().manual_seed(3)))[:, 0] for _ in range(2)]
    assert torch.equal(*draws)
    counts = torch.bincount(draws[0].long(), minlength=8)
    assert (counts - 1000).abs().max() < 150  # five standard deviations
    out = torch.empty(8000, 1)
    assert ring.take(ring.draw(8000, torch.Generator().manual_seed(3)), out) is out
    assert torch.equal(out[:, 0], draws[0])


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("count", [3, 25])
def test_exact_resume(in_file, count, tmp_path):
    path = tmp_path / "ring" if in_file else None
    spare = 6 if in_file else 0
    ring = Ring(10, 3, path, spare)
    for i in range(count):
        ring.add(rows(i, 1))
    saved, written = {k: v.clone() for k, v in ring.tensors().items()}, ring.written
    assert bool(saved) != in_file
    expected = held(ring)
    if in_file:
        ring.add(rows(1000, 6))  # after the checkpoint, lost with the process
    again = Ring(10, 3, path, spare)
    again.restore(saved, written)
    assert held(again) == expected
    again.add(rows(count, 1))
    assert held(again) == ({*expected, count} - ({count - 10} if count >= 10 else set()))


def test_what_cannot_be_resumed_is_said(tmp_path):
    ring = Ring(10, 3, tmp_path / "ring", spare=2)
    for i in range(15):
        ring.add(rows(i, 1))
    for path, written, message in (
        ("ring", 12, "overwritten"),
        ("ring", 20, "lacks the last 5 rows"),
        ("gone", 12, "is missing"),
    ):
        again = Ring(10, 3, tmp_path / path, spare=2)
        again.restore({}, written)  # enough for an evaluation
        with pytest.raises(UsageError, match=message):
            again.add(rows(0, 1))
    assert not (tmp_path / "gone").exists()
    (tmp_path / "other").write_bytes(np.zeros(5000, np.uint8).tobytes())
    (tmp_path / "file").touch()
    for broken, message in (
        (Ring(7, 3, tmp_path / "ring", spare=2), "does not hold 9 rows"),
        (Ring(7, 3, tmp_path / "other"), "not the replay of this run"),
        (Ring(7, 3, tmp_path / "file" / "ring"), "cannot use replay file"),
    ):
        with pytest.raises(UsageError, match=message):
            broken.add(rows(0, 1))
    memory = Ring(4, 3)
    with pytest.raises(UsageError, match="missing"):
        memory.restore({}, 2)
    with pytest.raises(UsageError, match="of shape"):
        memory.restore({"replay/rows": rows(0, 3, 2)}, 3)


def test_a_file_takes_room_only_as_it_fills(tmp_path):
    ring = Ring(1_000_000, 100, tmp_path / "ring")
    ring.add(rows(0, 10, 100))
    assert (tmp_path / "ring").stat().st_blocks * 512 < 10_000_000 < (tmp_path / "ring").stat().st_size
