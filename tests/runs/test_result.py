"""What a finished run leaves in its directory."""

import json
from pathlib import Path

import torch

from kpg_fast import Config
from kpg_fast.runs import metrics
from kpg_fast.runs.run import train
from tests.fake_trainer import FakeTrainer


def test_train_keeps_everything(tmp_path: Path, fake_trainer: type[FakeTrainer]) -> None:
    result = train(
        Config.make(
            levels=3,
            num_envs=4,
            num_steps=8,
            num_minibatches=2,
            hidden=6,
            total_steps=192,
            run_dir=str(tmp_path / "run"),
        )
    )
    assert result.finished
    assert result.updates == 6
    assert result.env_steps == 192
    names = {path.name for path in result.run_dir.iterdir()}
    assert {"config.json", "provenance.json", "metrics.jsonl", "checkpoints", "result.json", "marl_eval.json"} <= names
    assert {"plot.png", "plot.svg", "tensorboard"} <= names
    assert {path.name for path in (result.run_dir / "checkpoints").iterdir()} == {"last", "best"}
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]

    config = Config.from_dict(json.loads((result.run_dir / "config.json").read_text()))
    assert config.levels == 3
    assert config.settings.hidden == 6
    provenance = json.loads((result.run_dir / "provenance.json").read_text())
    assert provenance["facts"] == {"flavour": "fake", "map": "smax/2s3z"}
    assert provenance["versions"]["torch"] == torch.__version__
    assert {"cpu", "cores"} <= provenance["hardware"].keys()
    assert provenance["commit"]
    outcome = json.loads((result.run_dir / "result.json").read_text())
    assert outcome["evaluation"]["eval/win_rate"] == 1.0
    assert outcome["facts"]["flavour"] == "fake"

    log = metrics.read(result.run_dir / "metrics.jsonl")
    assert [line["update"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert [line["env_steps"] for line in log] == [32, 64, 96, 128, 160, 192]
    assert "eval/win_rate" not in log[0]
    assert log[-1]["test_battle_won_mean"] == log[-1]["eval/win_rate"] == 1.0
