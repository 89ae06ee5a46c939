import json

import pytest
from rich.console import Console

from bench import race, run
from bench.measure import Bound, Case, rows_of


def case(samples, **values):
    return Case("a/case", "time", "ms", run=lambda: samples, reference="other", higher_is_better=False, **values)


def test_row_names_ratio_and_share_of_the_peak():
    made = case({"ours": [2.0, 2.0, 4.0], "other": [6.0]}, bound=Bound.of_time("fp32", 1e9))
    ours, other = rows_of(made, made.run(), peak=1e12)
    assert (ours.median, ours.ratio) == (2.0, 3.0)
    assert ours.settings == {"peak": "fp32", "peak_per_second": 1e12, "share_of_peak": pytest.approx(0.5)}
    assert (other.case, other.ratio, other.settings) == ("a/case#other", None, {})


def test_what_was_measured_is_kept_when_a_later_case_fails(tmp_path):
    def fail():
        raise RuntimeError

    path = tmp_path / "rows.jsonl"
    with pytest.raises(RuntimeError):
        run.measure([case({"ours": [1.0]}), Case("b", "time", "ms", run=fail)], path, Console(quiet=True))
    assert [json.loads(line)["case"] for line in path.read_text().splitlines()] == ["a/case"]


def test_peaks_are_measured_beside_the_case(tmp_path, monkeypatch):
    peaks = iter([1e12, 2e12])
    monkeypatch.setattr(run, "peak", lambda name: next(peaks))
    made = case({"ours": [1.0]}, bound=Bound.of_time("fp32", 1e9))
    (row,) = run.measure([made], tmp_path / "rows.jsonl", Console(quiet=True))
    assert row.settings["share_of_peak"] == pytest.approx(0.5)  # of the better one


def test_race_to_win_stops_where_a_rollout_is_won(monkeypatch):
    lines = [{"seconds": 1.0, "win_rate": 0.9}, {"seconds": 2.0, "win_rate": 0.96}, {"seconds": 3.0, "win_rate": 1.0}]
    monkeypatch.setattr(race, "jaxmarl", lambda *_: [*lines, {"env_sps": 1.0}])
    monkeypatch.setattr(race, "_ours_to_win", lambda values, seed: 0.5)
    race.seconds_to_win.cache_clear()
    found = {made.name: made for made in race.cases("checkout")}
    samples = found["train.k_mappo/2s3z/jaxmarl/time_to_win/seed1/K1"].run()
    assert samples == {"ours": [0.5], "jaxmarl": [2.0]}
    race.seconds_to_win.cache_clear()


def test_lines_that_jaxmarl_prints_besides_are_no_rows():
    assert race.rows_in('Importing submoduled environments...\n{"env_sps": 2.0}\n') == [{"env_sps": 2.0}]


def test_no_race_without_a_checkout():
    assert race.cases(None) == race.cases("") == []
