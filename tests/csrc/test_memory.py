import gc
import threading

import numpy as np
import pytest

from kpg_fast import _C


def address(array: np.ndarray) -> int:
    return array.ctypes.data


@pytest.fixture(autouse=True)
def nothing_kept():
    _C.release_memory()
    yield
    _C.release_memory()


@pytest.mark.parametrize("shape", [(), (3,), (70, 90), (3, 1000, 1000)])
def test_memory_is_taken_again_when_its_array_is_gone(shape):
    first = _C.take_memory(shape)
    assert first.shape == shape
    assert first.dtype == np.float32
    assert first.flags.c_contiguous
    assert first.flags.writeable
    where = address(first)
    second = _C.take_memory(shape)
    assert address(second) != where
    del first
    gc.collect()
    assert address(_C.take_memory(shape)) == where


def test_bytes_are_counted_until_they_are_released():
    before = _C.memory_nbytes()
    array = _C.take_memory((1 << 20,))
    assert _C.memory_nbytes() == before + (4 << 20)
    del array
    assert _C.memory_nbytes() == before + (4 << 20)
    _C.take_memory((1 << 20,))
    assert _C.memory_nbytes() == before + (4 << 20)
    _C.release_memory()
    assert _C.memory_nbytes() == before


def test_a_view_keeps_its_memory():
    whole = _C.take_memory((1000, 1000))
    where, part = address(whole), whole[10:]
    del whole
    assert address(_C.take_memory((1000, 1000))) != where
    part[:] = 1


def test_much_larger_memory_is_left_for_those_who_need_it():
    large = _C.take_memory((4000, 1000))
    where = address(large)
    del large
    assert address(_C.take_memory((1000, 1000))) != where
    assert address(_C.take_memory((3900, 1000))) == where


def test_threads_take_and_give_back():
    def work():
        for i in range(200):
            array = _C.take_memory((64, 100 + i % 7))
            array[:] = threading.get_ident() % 1000
            assert (array == threading.get_ident() % 1000).all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_too_much_is_refused():
    with pytest.raises(MemoryError):
        _C.take_memory((2**60,))
