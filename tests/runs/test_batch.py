"""A batch of seeds leaves the run directories of single runs, and resumes in every way."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from kpg_fast.command_line.main import main
from kpg_fast.errors import UsageError
from kpg_fast.k_mappo_trainer import KMappoTrainer
from kpg_fast.runs.batch import resume_batch, train_batch
from kpg_fast.runs.run import RunResult, resume, train
from tests.runs.test_run import assert_same_run, small, stop_at

pytestmark = pytest.mark.usefixtures("no_plot")
VALUES = {"env": "smax/3m", "num_epochs": 2, "eval_every": 64, "eval_every_episodes": 2}
SEEDS = (4, 9)


def batch(base: Path) -> list[RunResult]:
    return train_batch([small(base, seed=seed, **VALUES) for seed in SEEDS], base)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[RunResult]:
    base = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kpg_fast.runs.result.find_spec", lambda name: None)  # as no_plot
        return [train(small(base / str(seed), seed=seed, **VALUES)) for seed in SEEDS]


def test_every_seed_has_the_directory_of_its_single_run(tmp_path: Path, alone: list[RunResult]) -> None:
    results = batch(tmp_path / "batch")
    for result, other in zip(results, alone, strict=True):
        assert_same_run(result, other)
        ours, theirs = (json.loads((r.run_dir / "config.json").read_text()) for r in (result, other))
        assert ours | {"run_dir": ""} == theirs | {"run_dir": ""}
        assert {f.name for f in result.run_dir.iterdir()} == {f.name for f in other.run_dir.iterdir()}


def test_a_stopped_batch_resumes_together_or_a_seed_alone(
    tmp_path: Path, alone: list[RunResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, KMappoTrainer, 3, signal.SIGTERM, "update_all")
        stopped = batch(tmp_path / "batch")
    assert [result.updates for result in stopped] == [3, 3]
    shutil.copytree(tmp_path / "batch", tmp_path / "copy")
    for result, other in zip(resume_batch(tmp_path / "batch"), alone, strict=True):
        assert_same_run(result, other)
    # one seed goes on alone; then the batch's seeds are no longer at one update
    assert_same_run(resume(tmp_path / "copy" / "seed9"), alone[1])
    for result, other in zip(resume_batch(tmp_path / "copy"), alone, strict=True):
        assert_same_run(result, other)


def test_a_seed_of_another_length_goes_on_alone(tmp_path: Path) -> None:
    values = VALUES | {"anneal_lr": False, "eval_every": 0, "updates": 2}
    train_batch([small(tmp_path / "batch", seed=seed, **values) for seed in SEEDS], tmp_path / "batch")
    config = tmp_path / "batch" / "seed4" / "config.json"
    config.write_text(config.read_text().replace('"total_steps": 64', '"total_steps": 96'))  # as if killed at once
    assert [result.updates for result in resume_batch(tmp_path / "batch")] == [3, 2]


def test_what_cannot_be_batched_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--seeds", "0..1", "--batch-seeds", "--run-dir", str(tmp_path / "run")]
    assert main(["train", "k-facmac", "smax/3m", *flags]) == 2
    assert "batch_seeds: k-facmac trains one seed after another" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    (tmp_path / "batch.json").write_text("{}")
    with pytest.raises(UsageError, match=r"batch\.json cannot be read"):
        resume_batch(tmp_path)
