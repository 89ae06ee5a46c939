import pytest
import torch

from tests.fake_trainer import FakeTrainer

# Tests work on small tensors, where threads only wait for one another; those about threads set their own number.
torch.set_num_threads(1)


@pytest.fixture
def fake_trainer(monkeypatch: pytest.MonkeyPatch) -> type[FakeTrainer]:
    """Runs use the fake trainer instead of a real one."""
    monkeypatch.setattr("kpg_fast.runs.run.make_trainer", FakeTrainer)
    return FakeTrainer


@pytest.fixture
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end as if matplotlib were not installed: drawing is most of what a small run takes."""
    monkeypatch.setattr("kpg_fast.runs.result.find_spec", lambda name: None)
