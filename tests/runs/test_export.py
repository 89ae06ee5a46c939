import csv
import io
from pathlib import Path

from kpg_fast.runs.export import marl_eval, table
from kpg_fast.runs.records import find_runs
from tests.made_runs import UPDATES, made_run


def test_marl_eval_structure(tmp_path: Path) -> None:
    for seed in (0, 1):
        made_run(tmp_path / f"seed{seed}", seed, evaluations=4)
    made_run(tmp_path / "unfinished", 2, updates=3)
    structure, unfinished = marl_eval(find_runs([tmp_path]))
    assert [run.path.name for run in unfinished] == ["unfinished"]
    assert list(structure) == ["smax"]
    (task,) = structure["smax"].values()
    (algorithm,) = task.values()
    assert list(algorithm) == ["seed_0", "seed_1"]
    for run in algorithm.values():
        assert list(run) == ["step_0", "step_1", "step_2", "step_3", "absolute_metrics"]
        assert [run[f"step_{i}"]["step_count"] for i in range(4)] == [160, 320, 480, 640]
        last = run["step_3"]
        assert run["absolute_metrics"] == {name: last[name] for name in ("win_rate", "return", "episode_length")}
        assert last["win_rate"] == [last["return"][0] / 2]


def test_table_has_a_row_an_update(tmp_path: Path) -> None:
    made_run(tmp_path / "a", 0, levels=1)
    made_run(tmp_path / "b", 1)
    rows = list(csv.DictReader(io.StringIO(table(find_runs([tmp_path])))))
    assert len(rows) == 2 * UPDATES
    first, last = rows[0], rows[-1]
    assert (first["levels"], first["seed"], last["levels"], last["seed"]) == ("1", "0", "2", "1")
    assert first["win_rate"] == ""  # not measured
    assert first["eval/win_rate"] == ""
    assert float(last["eval/win_rate"]) == float(last["win_rate"])
    assert last["env"] == "smax/2s3z (default flavour)"
