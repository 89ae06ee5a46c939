import numpy as np
import pytest
import torch

from kpg_fast import _C


@pytest.fixture(autouse=True)
def empty_is_nan(monkeypatch):
    """Fresh memory is NaN (integers: -999), so that an output that is not written everywhere is seen."""

    def filled(*shape, dtype=None, **options):
        shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        integer = dtype is not None and not dtype.is_floating_point
        return torch.full(shape, -999 if integer else float("nan"), dtype=dtype, **options)

    def filled_like(other, **options):
        memory = like(other, **options)
        return memory.fill_(float("nan") if memory.dtype.is_floating_point else -999)

    like = torch.empty_like
    monkeypatch.setattr(torch, "empty", filled)
    monkeypatch.setattr(torch, "empty_like", filled_like)
    monkeypatch.setattr(_C, "take_memory", lambda shape: np.full(shape, np.nan, np.float32))
