import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from kpg_fast.errors import UsageError
from kpg_fast.store import checkpoint
from kpg_fast.store.parameters import Layout, ParameterStore

META = {"env_steps": 3, "rng": 2**127 + 1, "config": {"lr": 0.002, "maps": ["2s3z"]}}


def contents():
    store = ParameterStore(Layout({"w": (3, 5), "b": (5,)}), 2, ["theta", "target"])
    store.slot("theta").normal_()
    return {
        "theta": store.slot("theta"),
        "target": store.slot("target"),
        "bf16": torch.randn(7).bfloat16(),
        "scalar": torch.tensor(0.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "strided": torch.randn(6, 4).T,
        "flags": np.array([True, False]),
        "key": np.arange(5, dtype=np.uint64) << np.uint64(60),
        "fortran": np.asfortranarray(np.random.default_rng(0).normal(size=(3, 4))),
        "count": np.array(7, dtype=np.int32),
    }


def assert_same(loaded, saved):
    assert loaded.keys() == saved.keys()
    for name, value in saved.items():
        assert type(loaded[name]) is type(value), name
        assert loaded[name].dtype == value.dtype, name
        assert loaded[name].shape == value.shape, name
        assert bool((loaded[name] == value).all()), name


@pytest.fixture
def saved(tmp_path):
    tensors = contents()
    checkpoint.save(tmp_path / "last", tensors, META)
    return tmp_path / "last", tensors


def tensors_file(path: Path) -> Path:
    (found,) = path.glob("*.safetensors")
    return found


def test_what_is_loaded_is_what_was_saved(saved):
    path, tensors = saved
    loaded, meta = checkpoint.load(path)
    assert_same(loaded, tensors)
    assert meta == META
    assert sorted(file.suffix for file in path.iterdir()) == [".json", ".safetensors"]


def test_a_second_save_replaces_the_first_and_leaves_nothing_behind(saved):
    path, tensors = saved
    tensors["theta"] += 1
    checkpoint.save(path, tensors, {"env_steps": 4})
    loaded, meta = checkpoint.load(path)
    assert_same(loaded, tensors)
    assert meta == {"env_steps": 4}
    assert len(list(path.iterdir())) == 2


@pytest.mark.parametrize("calls_before_the_crash", range(12))
def test_an_interrupted_save_leaves_the_previous_checkpoint_or_the_new_one(saved, monkeypatch, calls_before_the_crash):
    """The process dies at every call that touches the disk in turn; the checkpoint that is found must be whole."""
    path, tensors = saved
    before = {name: value.clone() if torch.is_tensor(value) else value.copy() for name, value in tensors.items()}
    tensors["theta"] += 1
    calls = 0

    class PowerCut(BaseException):
        pass

    def dying(function):
        def wrapper(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > calls_before_the_crash:
                raise PowerCut
            return function(*args, **kwargs)

        return wrapper

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace", "unlink"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            checkpoint.save(path, tensors, {"env_steps": 4})
            survived = True
        except PowerCut:
            survived = False
    assert survived == (calls_before_the_crash >= 7)
    loaded, meta = checkpoint.load(path)
    assert_same(loaded, tensors if meta == {"env_steps": 4} else before)
    assert meta in (META, {"env_steps": 4})

    checkpoint.save(path, tensors, {"env_steps": 5})
    assert checkpoint.load(path)[1] == {"env_steps": 5}
    assert len(list(path.iterdir())) == 2


def test_truncated_tensors(saved):
    path, _ = saved
    file = tensors_file(path)
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(UsageError, match=rf"{file}: truncated: \d+ bytes, \d+ were written"):
        checkpoint.load(path)


@pytest.mark.parametrize("position", [0, 9, 100, -1, -40, -200])
def test_a_flipped_bit_anywhere_is_found(saved, position):
    path, _ = saved
    file = tensors_file(path)
    data = bytearray(file.read_bytes())
    data[position] ^= 4
    file.write_bytes(data)
    with pytest.raises(UsageError, match=f"{file}: altered"):
        checkpoint.load(path)


def test_an_altered_tensor_is_named(saved):
    path, tensors = saved
    file = tensors_file(path)
    data = bytearray(file.read_bytes())
    at = data.index(tensors["theta"].numpy().tobytes())
    data[at + 5] ^= 1
    file.write_bytes(data)
    with pytest.raises(UsageError, match="tensor theta is not what was written"):
        checkpoint.load(path)


def test_altered_meta_data(saved):
    path, _ = saved
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["meta"]["env_steps"] = 10**6
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=r"manifest\.json: altered"):
        checkpoint.load(path)


def test_truncated_manifest(saved):
    path, _ = saved
    os.truncate(path / "manifest.json", 100)
    with pytest.raises(UsageError, match=r"manifest\.json: truncated or altered"):
        checkpoint.load(path)


def test_missing_files(saved, tmp_path):
    path, _ = saved
    file = tensors_file(path)
    file.unlink()
    with pytest.raises(UsageError, match=f"{file}: missing"):
        checkpoint.load(path)
    (path / "manifest.json").unlink()
    with pytest.raises(UsageError, match=r"no checkpoint at .*manifest\.json is missing"):
        checkpoint.load(path)
    with pytest.raises(UsageError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "nowhere")


def test_a_later_version_is_refused_by_its_number(saved):
    path, _ = saved
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["version"] = 99
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="format version 99; this kpg_fast reads version 1"):
        checkpoint.load(path)


def test_another_shape_is_named(saved):
    path, tensors = saved
    checkpoint.load(path, shapes={"theta": tuple(tensors["theta"].shape)})
    with pytest.raises(UsageError, match=r"theta is \[2, 32\] there and \[2, 48\] here"):
        checkpoint.load(path, shapes={"theta": (2, 48)})
    with pytest.raises(UsageError, match="no tensor 'critic'"):
        checkpoint.load(path, shapes={"critic": (1,)})


def test_nothing_is_written_for_what_cannot_be_held(tmp_path):
    with pytest.raises(TypeError, match="names"):
        checkpoint.save(tmp_path / "last", {"names": np.array(["a"])}, {})
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path / "last", {"a": torch.zeros(1)}, {"rng": object()})
    assert not (tmp_path / "last").exists()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write checkpoint"):
        checkpoint.save(tmp_path / "file" / "last", {"a": torch.zeros(1)}, {})
