"""Checkpoints: a directory with tensors in safetensors format and a JSON manifest that vouches for them; no pickle.

``manifest.json`` names the tensors' file and holds its size and SHA-256, every tensor's shape, type and checksum, the
caller's meta data, and a SHA-256 of itself. A save writes a new tensors file beside the old one, and only the rename of
the new manifest over the old makes it count: whatever interrupts a save, the directory holds one whole checkpoint, the
previous or the new. One process writes to a directory; any number may read.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kpg_fast import _C
from kpg_fast.errors import UsageError

FORMAT_VERSION = 1

Array = Tensor | NDArray[Any]

_MANIFEST = "manifest.json"
_CHUNK = 1 << 23  # bytes between two looks at the interpreter's lock while a file is written or read
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
}  # fmt: skip


def save(path: str | os.PathLike[str], tensors: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint, replacing the one at ``path`` if there is one.

    Args:
        path: the checkpoint's directory; made if missing.
        tensors: name -> tensor (any device) or NumPy array (any order of memory), of any shape.
        meta: counters, configuration, ...: whatever JSON can hold.

    Raises:
        UsageError: the directory cannot be written.
        TypeError: a tensor of a type that safetensors does not know, or meta data that is not JSON.
    """
    directory = Path(path)
    contents = {name: as_tensor(name, value) for name, value in tensors.items()}
    manifest: dict[str, Any] = {
        "format": "kpg_fast checkpoint",
        "version": FORMAT_VERSION,
        "tensors": {name: _describe(contents[name], value) for name, value in tensors.items()},
        "meta": dict(meta),
    }
    json.dumps(manifest)  # what JSON cannot hold fails here, before anything is written
    try:
        directory.mkdir(parents=True, exist_ok=True)
        manifest["file"] = _write_tensors(directory, contents)
        manifest["sha256"] = _own_hash(manifest)
        aside = directory / f"{_MANIFEST}.tmp"
        _write_durably(aside, iter([json.dumps(manifest, indent=1).encode()]))
        _rename_durably(aside, directory / _MANIFEST)
        for old in directory.glob("tensors-*.safetensors"):
            if old.name != manifest["file"]["name"]:
                old.unlink()
    except OSError as error:
        for aside in directory.glob("*.tmp"):
            aside.unlink(missing_ok=True)
        raise UsageError(f"cannot write checkpoint {directory}: {error.strerror} ({error.filename})") from error


def load(
    path: str | os.PathLike[str], shapes: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read and verify a checkpoint; returns the tensors (NumPy arrays where arrays were saved) and the meta data.

    Args:
        path: the checkpoint's directory.
        shapes: name -> shape of tensors that must be there just so, e.g. those of the model to continue with.

    Raises:
        UsageError: no checkpoint there, a file that is missing, truncated or altered, another format, another shape;
            the message names the file and what is wrong with it.
    """
    directory = Path(path)
    while True:
        manifest = _read_manifest(directory)
        try:
            tensors = _read_tensors(directory / manifest["file"]["name"], manifest)
            break
        except FileNotFoundError as error:
            # a writer may have replaced the checkpoint since the manifest was read
            if _read_manifest(directory) == manifest:
                raise UsageError(f"{error.filename}: missing, though {_MANIFEST} names it") from error
    for name, shape in (shapes or {}).items():
        if name not in tensors:
            raise UsageError(f"checkpoint {directory} has no tensor {name!r}; it belongs to another model")
        if tuple(tensors[name].shape) != tuple(shape):
            raise UsageError(
                f"checkpoint {directory} is of another shape: {name} is {list(tensors[name].shape)} there "
                f"and {list(shape)} here"
            )
    return tensors, manifest["meta"]


def as_tensor(name: str, value: Array) -> Tensor:
    """Bring a value to contiguous CPU memory, without a copy where it is there already; ``name`` is for the error."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise TypeError(f"{name}: a checkpoint cannot hold {value.dtype}")
        value = torch.from_numpy(value if value.flags.c_contiguous and value.flags.writeable else np.array(value))
    if value.dtype not in _DTYPES:
        raise TypeError(f"{name}: a checkpoint cannot hold {value.dtype}")
    return value.detach().cpu().contiguous()


def as_bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """View a contiguous CPU tensor as its bytes."""
    array: NDArray[np.uint8] = tensor.reshape(-1).view(torch.uint8).numpy()
    return array


def _describe(tensor: Tensor, original: Array) -> dict[str, Any]:
    return {
        "shape": list(tensor.shape),
        "dtype": _DTYPES[tensor.dtype],
        "checksum": _checksum(tensor),
        "kind": "numpy" if isinstance(original, np.ndarray) else "torch",
    }


def _checksum(tensor: Tensor) -> str:
    # one thread: a background writer must not compete with the threads that train
    return f"{_C.checksum(as_bytes(tensor), 1):016x}"


def _own_hash(manifest: Mapping[str, Any]) -> str:
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _write_tensors(directory: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write the tensors' file under a name that its contents give; returns name, size and hash."""
    digest, nbytes = hashlib.sha256(), 0

    def counted() -> Iterator[bytes | memoryview]:
        nonlocal nbytes
        for piece in _safetensors(tensors):
            digest.update(piece)
            nbytes += len(piece)
            yield piece

    aside = directory / "tensors.tmp"
    _write_durably(aside, counted())
    final = directory / f"tensors-{digest.hexdigest()[:16]}.safetensors"
    _rename_durably(aside, final)
    return {"name": final.name, "nbytes": nbytes, "sha256": digest.hexdigest()}


def _safetensors(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Lay tensors out as safetensors does: length of the header, header, data; wide types first, so all are aligned.

    The package's own writer refuses views of one slab.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header, offset = {}, 0
    for name in names:
        end = offset + tensors[name].nbytes
        header[name] = {
            "dtype": _DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        data = as_bytes(tensors[name]).data
        for start in range(0, len(data), _CHUNK):
            yield data[start : start + _CHUNK]


def _write_durably(path: Path, pieces: Iterator[bytes | memoryview]) -> None:
    """Write a file and wait until the disk has it."""
    with open(path, "wb", buffering=0) as file:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


def _rename_durably(aside: Path, path: Path) -> None:
    """Put a written file in its place in one step and wait until the disk knows."""
    os.replace(aside, path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / _MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"no checkpoint at {directory}: {path} is missing") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError:
        raise UsageError(f"{path}: truncated or altered: it is not JSON") from None
    if not isinstance(manifest, dict) or manifest.get("format") != "kpg_fast checkpoint":
        raise UsageError(f"{path}: not the manifest of a kpg_fast checkpoint")
    if manifest.get("version") != FORMAT_VERSION:
        raise UsageError(
            f"{path}: format version {manifest.get('version')}; this kpg_fast reads version {FORMAT_VERSION}"
        )
    if manifest.get("sha256") != _own_hash(manifest):
        raise UsageError(f"{path}: altered: its SHA-256 is not the one it states")
    return manifest


def _read_tensors(path: Path, manifest: Mapping[str, Any]) -> dict[str, Array]:
    # here, because only reading needs the package: a bare machine trains and measures without it
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    stated = manifest["file"]
    nbytes, digest = path.stat().st_size, hashlib.sha256()
    if nbytes != stated["nbytes"]:
        kind = "truncated" if nbytes < stated["nbytes"] else "altered"
        raise UsageError(f"{path}: {kind}: {nbytes} bytes, {stated['nbytes']} were written")
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    intact = digest.hexdigest() == stated["sha256"]
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UsageError(f"{path}: altered: {error}") from error
    for name, about in manifest["tensors"].items():
        tensor = tensors.get(name)
        if tensor is None or [*tensor.shape] != about["shape"] or _checksum(tensor) != about["checksum"]:
            raise UsageError(f"{path}: altered: tensor {name} is not what was written")
    if not intact:
        raise UsageError(f"{path}: altered: its SHA-256 is not the one that {_MANIFEST} states")
    return {
        name: tensor.numpy() if manifest["tensors"][name]["kind"] == "numpy" else tensor
        for name, tensor in tensors.items()
    }
