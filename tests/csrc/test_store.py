import gc

import numpy as np
import pytest

from kpg_fast import _C


def random_bytes(nbytes, seed=0):
    return np.random.default_rng(seed).integers(0, 256, nbytes, dtype=np.uint8)


@pytest.mark.parametrize("nbytes", [1, 63, 4096, 3 << 20])
def test_a_slab_is_zeroed_aligned_and_outlives_its_name(nbytes):
    array = _C.Slab(nbytes).array()
    gc.collect()
    assert array.shape == (nbytes,)
    assert array.dtype == np.uint8
    assert array.ctypes.data % 4096 == 0
    assert not array.any()
    array[:] = 7
    assert (array == 7).all()


@pytest.mark.parametrize("nbytes", [0, -1])
def test_an_empty_slab_is_refused(nbytes):
    with pytest.raises(ValueError, match="at least one byte"):
        _C.Slab(nbytes)


def test_a_slab_past_memory_is_an_error_and_not_a_crash():
    with pytest.raises(MemoryError):
        _C.Slab(2**62)


@pytest.mark.parametrize("threads", [0, 1, 2, 3])
@pytest.mark.parametrize("nbytes", [1, 4095, 4097, 100_003, 3_000_017])
def test_copy(nbytes, threads):
    src, room = random_bytes(nbytes), np.full(nbytes + 128, 255, np.uint8)
    _C.copy(src, room[64:-64], threads)
    assert (room[64:-64] == src).all()
    assert (room[:64] == 255).all()
    assert (room[-64:] == 255).all()


@pytest.mark.parametrize("threads", [0, 1, 2, 5])
def test_copy_many_copies_every_array_and_nothing_beside(threads):
    lengths = [1, 0, 4096, 70_001, 3, 200_000, 17]
    src = [random_bytes(n, seed) for seed, n in enumerate(lengths)]
    rooms = [np.full(n + 2, 255, np.uint8) for n in lengths]
    _C.copy_many(src, [room[1:-1] for room in rooms], threads)
    for source, room in zip(src, rooms, strict=True):
        assert (room[1:-1] == source).all()
        assert room[0] == room[-1] == 255


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("nbytes", [0, 1, 64, 65_535, 65_536, 65_537, 1_000_003])
def test_checksum_does_not_depend_on_threads(nbytes, threads):
    data = random_bytes(nbytes)
    assert _C.checksum(data, threads) == _C.checksum(data.copy(), 1)


def test_checksum_sees_every_bit_every_length_and_the_order():
    data = random_bytes(65_536 + 77)
    seen = {_C.checksum(data)}
    for position in (0, 1, 7, 8, 63, 64, 500, 65_535, 65_536, 65_536 + 64, len(data) - 1):
        for bit in range(8):
            data[position] ^= 1 << bit
            seen.add(_C.checksum(data))
            data[position] ^= 1 << bit
    assert len(seen) == 1 + 11 * 8
    for shorter in (1, 2, 64, 65_536):
        seen.add(_C.checksum(data[:-shorter]))
    for i, j in ((0, 8), (0, 64), (0, 65_536), (64, 65_600)):  # words in other lanes, stripes and blocks
        swapped = data.copy()
        swapped[i : i + 8], swapped[j : j + 8] = data[j : j + 8], data[i : i + 8]
        seen.add(_C.checksum(swapped))
    zeros = {_C.checksum(np.zeros(n, np.uint8)) for n in (0, 1, 8, 64, 65_536, 131_072)}
    assert len(seen | zeros) == 1 + 11 * 8 + 4 + 4 + 6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tau", [0.0, 0.001, 1.0])
def test_polyak(dtype, tau):
    rng = np.random.default_rng(0)
    src, dst = rng.normal(size=(2, 3, 50_001)).astype(dtype)
    expected = dtype(1 - tau) * dst + dtype(tau) * src
    _C.polyak(src, dst, tau)
    np.testing.assert_allclose(dst, expected, rtol=4 * np.finfo(dtype).eps, atol=1e-12)
    if tau == 1.0:
        assert (dst == src).all()


def test_arrays_that_do_not_fit_are_refused_and_never_copied_silently():
    a, b = np.zeros((4, 6), np.float32), np.zeros((4, 6), np.float32)
    read_only = b.copy()
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="dst must be C-contiguous; got strided float32"):
        _C.copy(a, np.zeros((4, 12), np.float32)[:, ::2])
    with pytest.raises(ValueError, match="src must be C-contiguous"):
        _C.copy(a.T, b)
    with pytest.raises(ValueError, match=r"as many bytes; got float32 .* and float64"):
        _C.copy(a, b.astype(np.float64))
    with pytest.raises(ValueError, match="dst must be writable"):
        _C.copy(a, read_only)
    with pytest.raises(ValueError, match="overlap in part"):
        _C.copy(a[:3], a[1:])
    with pytest.raises(ValueError, match="as many arrays; got 1 and 2"):
        _C.copy_many([a], [b, b])
    with pytest.raises(TypeError):
        _C.copy(a.tolist(), b)
    with pytest.raises(TypeError):
        _C.copy_many([a.tolist()], [b])
    with pytest.raises(ValueError, match=r"dst must be like src, float32 \[4, 6\]; got float64 \[4, 6\]"):
        _C.polyak(a, b.astype(np.float64), 0.5)
    with pytest.raises(ValueError, match=r"tau must lie in \[0, 1\]"):
        _C.polyak(a, b, 1.5)
    with pytest.raises(ValueError, match="float32 or float64; got int64"):
        _C.polyak(a.astype(np.int64), b.astype(np.int64), 0.5)
    with pytest.raises(ValueError, match="num_threads"):
        _C.checksum(a, -1)
