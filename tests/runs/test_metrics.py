import json
import math
import time
from pathlib import Path

import pytest

from kpg_fast.errors import UsageError
from kpg_fast.runs import metrics
from kpg_fast.runs.metrics import MetricsLog


def line(update: int, **values: float) -> dict[str, float]:
    return {"update": update, "env_steps": 100 * update, "seconds": float(update)} | values


def write(directory: Path, updates: int, *lines: dict[str, float]) -> None:
    with MetricsLog(directory, updates, "smac/3m (game 4.10, native client)") as log:
        for values in lines:
            log.write(values)


def test_pymarl_names_stand_beside_ours(tmp_path: Path) -> None:
    write(tmp_path, 0, line(1, **{"win_rate": 0.25, "return_mean": 3.0, "length_mean": 9.0, "eval/win_rate": 0.5}))
    (written,) = metrics.read(tmp_path / "metrics.jsonl")
    assert written["battle_won_mean"] == written["win_rate"] == 0.25
    assert written["test_battle_won_mean"] == written["eval/win_rate"] == 0.5
    assert (written["t_env"], written["return_mean"], written["ep_length_mean"]) == (100, 3.0, 9.0)
    assert "test_return_mean" not in written


def test_every_line_says_what_it_is_a_measurement_of(tmp_path: Path) -> None:
    write(tmp_path, 0, line(1), line(2))
    write(tmp_path, 2, line(3))
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert [values["task"] for values in lines] == 3 * ["smac/3m (game 4.10, native client)"]
    assert "task" not in metrics.read(tmp_path / "metrics.jsonl")[0]  # numbers alone


def test_nan_is_null_in_the_file(tmp_path: Path) -> None:
    write(tmp_path, 0, line(1, win_rate=math.nan))
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert json.loads(text)["win_rate"] is None
    assert math.isnan(metrics.read(tmp_path / "metrics.jsonl")[0]["win_rate"])


def test_going_on_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 0, *(line(update) for update in (1, 2, 3, 4)))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"update": 5, "env')
    write(tmp_path, 2, line(3, lost=0.0))
    read = metrics.read(tmp_path / "metrics.jsonl")
    assert [values["update"] for values in read] == [1, 2, 3]
    assert "lost" in read[-1]


def test_lines_that_were_lost_are_warned_of(tmp_path: Path) -> None:
    write(tmp_path, 0, line(1), line(2))
    with pytest.warns(UserWarning, match=r"ends at update 2, the run's checkpoint is of update 3: lines were lost"):
        write(tmp_path, 3, line(4))
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.warns(UserWarning, match="empty or missing"):
        write(tmp_path, 4, line(5))


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for text in (
        '{"update": 1}\n{"upd\n{"update": 3}\n',
        '{"update": 1}\n[1]\n',
        '{"update": 1}\n{"step": 2}\n',
        '{"update": 1}\n{"update": "2"}\n',
        '{"update": 1}\n{"update": 2, "win_rate": "0.5"}\n',
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match="line 2"):
            metrics.read(path)


def test_tensorboard_events_hold_the_same(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, 0, line(1, win_rate=0.25), line(2, win_rate=math.nan), line(3, win_rate=0.75))
    time.sleep(1.1)  # TensorBoard reads the files in the order of the second in their names
    write(tmp_path, 1, line(2, win_rate=0.5))  # resumed from a checkpoint after update 1
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("win_rate")] == [(100, 0.25), (200, 0.5)]
