import threading

import numpy as np
import pytest
import torch

from kpg_fast.errors import UsageError
from kpg_fast.store import checkpoint
from kpg_fast.store.parameters import Layout, ParameterStore
from kpg_fast.store.snapshot import BackgroundCheckpoint


def everything():
    store = ParameterStore(Layout({"w": (300, 70)}), 2, ["theta", "exp_avg"])
    store.slot("theta").normal_()
    return {
        "theta": store.slot("theta"),
        "w": store.views("theta")["w"],
        "count": torch.tensor(3),
        "empty": torch.zeros(0, 2),
        "bf16": torch.randn(5).bfloat16(),
        "units": np.arange(7, dtype=np.int16),
    }


@pytest.fixture
def slow_disk(monkeypatch):
    """A disk that waits for ``.set()`` before it writes anything."""
    gate, save = threading.Event(), checkpoint.save

    def wait_and_save(*args):
        assert gate.wait(timeout=30)
        save(*args)

    monkeypatch.setattr(checkpoint, "save", wait_and_save)
    yield gate
    gate.set()


def test_what_is_written_is_the_state_at_the_snapshot(tmp_path, slow_disk):
    tensors, writer = everything(), BackgroundCheckpoint()
    before = {name: value.clone() if torch.is_tensor(value) else value.copy() for name, value in tensors.items()}
    assert writer.start(tmp_path / "last", tensors, {"updates": 1})
    for value in tensors.values():  # training goes on while the disk has not written a byte
        value += 1
    assert not (tmp_path / "last").exists()
    slow_disk.set()
    writer.wait()
    loaded, meta = checkpoint.load(tmp_path / "last")
    assert meta == {"updates": 1}
    assert loaded.keys() == before.keys()
    for name, value in before.items():
        assert type(loaded[name]) is type(value)
        assert loaded[name].dtype == value.dtype
        assert loaded[name].shape == value.shape
        assert bool((loaded[name] == value).all()), name


def test_theta_that_changes_all_the_time_is_written_as_it_was_at_one_moment(tmp_path):
    """Every number of theta is the update's count; a checkpoint with two different numbers was torn."""
    store = ParameterStore(Layout({"w": (1000, 500)}), 1, ["theta"])
    theta, writer, taken = store.slot("theta"), BackgroundCheckpoint(), 0
    for update in range(60):
        theta.fill_(update)
        if writer.start(tmp_path / "last", {"theta": theta}, {"updates": update}):
            taken += 1
        theta.fill_(-1.0)
    writer.wait()
    loaded, meta = checkpoint.load(tmp_path / "last")
    assert taken >= 1
    assert loaded["theta"].unique().tolist() == [meta["updates"]]


def test_a_snapshot_during_a_write_is_put_off_and_disturbs_nothing(tmp_path, slow_disk):
    theta, writer = torch.zeros(1000), BackgroundCheckpoint()
    assert writer.start(tmp_path / "last", {"theta": theta}, {"updates": 1})
    theta += 1
    assert not writer.start(tmp_path / "last", {"theta": theta}, {"updates": 2})
    slow_disk.set()
    writer.wait()
    assert checkpoint.load(tmp_path / "last")[1] == {"updates": 1}
    assert not checkpoint.load(tmp_path / "last")[0]["theta"].any()
    assert writer.start(tmp_path / "last", {"theta": theta}, {"updates": 2})
    writer.wait()
    assert checkpoint.load(tmp_path / "last")[1] == {"updates": 2}
    assert checkpoint.load(tmp_path / "last")[0]["theta"].all()


def test_a_disk_that_fails_is_reported_once_and_to_the_trainer(tmp_path):
    (tmp_path / "file").write_text("")
    writer = BackgroundCheckpoint()
    writer.start(tmp_path / "file" / "last", {"theta": torch.zeros(3)}, {})
    with pytest.raises(UsageError, match="cannot write checkpoint"):
        writer.wait()
    writer.wait()
    assert writer.start(tmp_path / "last", {"theta": torch.zeros(3)}, {})
    writer.wait()
