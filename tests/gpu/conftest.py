"""The kernels on a card; or, under TRITON_INTERPRET=1, the same tests on CPU tensors by Triton's interpreter.

tests/kernels/test_interpreted.py does the latter in a process of its own, since Triton decides at its import.
"""

import os
from pathlib import Path

import pytest
import torch

from tests.kernels.conftest import empty_is_nan  # noqa: F401

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_modifyitems(items):
    """Mark what lies here; pytest shows a folder's conftest the whole session's tests."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device():
    """Where the kernels under test run; skips where there is neither a card nor the interpreter."""
    if INTERPRETED:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device; the same tests run interpreted in tests/kernels/test_interpreted.py")
    return torch.device("cuda")
