import types

import pytest
import torch

from kpg_fast.command_line import doctor
from kpg_fast.command_line.main import main
from kpg_fast.runs import provenance


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gru_gflops", lambda precision: {"fp32": 100.0, "bf16": 400.0}[precision])


def report() -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.examine()}


def test_every_part_is_looked_at() -> None:
    found = report()
    for what in ("kpg_fast", "torch", "numba", "extra plot", "extra smac", "backend CUDA", "environments smax"):
        assert what in found
    assert found["torch"].detail == torch.__version__
    assert "4.0 times fp32: --precision mixed-lookahead" in found["GRU bf16"].detail
    if not torch.cuda.is_available():
        assert not found["backend CUDA"].ok
        assert found["backend CUDA"].detail


def test_missing_extra_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = provenance.installed_version
    monkeypatch.setattr(provenance, "installed_version", lambda name: None if name == "matplotlib" else installed(name))
    extra = report()["extra plot"]
    assert not extra.ok
    assert "pip install 'kpg_fast[plot]' (matplotlib)" in extra.detail
    assert main(["doctor"]) == 0


def test_torch_is_named_with_its_build(monkeypatch: pytest.MonkeyPatch) -> None:
    # the registry's CUDA build says 2.13.0 in its metadata and 2.13.0+cu130 when asked
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    monkeypatch.setattr(provenance.metadata, "version", lambda name: "2.13.0")
    assert report()["torch"].detail == provenance.versions()["torch"] == "2.13.0+cu130"


def test_missing_need_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    installed = provenance.installed_version
    monkeypatch.setattr(provenance, "installed_version", lambda name: None if name == "numba" else installed(name))
    assert main(["doctor"]) == 1
    assert "MISSING numba: pip install numba" in capsys.readouterr().out


def test_family_speaks_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    family = types.SimpleNamespace(
        names=lambda: ["3m"], diagnose=lambda: [("game", False, "SC2PATH is not set"), ("client", True, "5.0")]
    )
    monkeypatch.setattr(doctor, "import_module", lambda name: family)
    found = report()
    assert not found["smac: game"].ok
    assert found["smac: game"].detail == "SC2PATH is not set"
    assert found["smac: client"].ok


def test_family_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError("no module named mujoco")

    monkeypatch.setattr(doctor, "import_module", refuse)
    assert doctor.environments()["mamujoco"] == "not available: no module named mujoco"
