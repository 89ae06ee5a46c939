import pytest

from tests.fake_trainer import FakeTrainer


@pytest.fixture
def fake_trainer(monkeypatch: pytest.MonkeyPatch) -> type[FakeTrainer]:
    """Runs use the fake trainer instead of a real one."""
    monkeypatch.setattr("kpg_fast.run.make_trainer", FakeTrainer)
    return FakeTrainer
