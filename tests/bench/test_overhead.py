from bench import overhead, overhead_report
from bench.measure import rows_of
from bench.overhead_report import PAPER, Level, by_setting


def row(case, median):
    return {"case": case, "median": median}


def of_case(case, ours, one, plain, plain_one):
    case = f"overhead.k_mappo/{case}"
    others = {"K1": one, "plain": plain, "plain K1": plain_one}
    return [row(case, ours), *(row(f"{case}#{name}", value) for name, value in others.items())]


def test_marginal_cost_of_a_level():
    found = by_setting(of_case("3m/kpg/K3", 3.0, 2.0, 12.0, 4.0))
    assert found == {"3m/kpg": {3: Level(3.0, 2.0, 12.0, 4.0)}}
    assert found["3m/kpg"][3].marginal(3) == (25.0, 100.0)


def test_the_last_measurement_counts_and_others_are_left_alone():
    rows = [row("smax_step/3m", 1.0), *of_case("3m/kpg/K2", 9, 9, 9, 9), *of_case("3m/kpg/K2", 3.0, 2.0, 6.0, 4.0)]
    assert by_setting(rows) == {"3m/kpg": {2: Level(3.0, 2.0, 6.0, 4.0)}}


def test_figure_and_table_show_every_setting(tmp_path):
    rows = [r for k in (1, 2) for name in ("3m", "2s3z") for r in of_case(f"{name}/kpg/K{k}", k, 1.0, k + 1, 2.0)]
    found = by_setting(rows)
    made = overhead_report.table(found)
    assert made.row_count == 4
    assert f"{PAPER:.0f} %" in str(made.title)
    overhead_report.draw(found, tmp_path / "figure.png")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def test_every_level_is_measured_beside_the_usual_implementation(monkeypatch):
    monkeypatch.setattr(overhead, "MAPS", {"3m": {"num_envs": 4, "num_steps": 6, "hidden": 8}})
    monkeypatch.setattr(overhead, "LEVELS", range(1, 3))
    overhead.iterations.cache_clear()
    cases = [case for case in overhead.cases() if "/kpg/" in case.name]
    rows = [r.to_dict() for case in cases for r in rows_of(case, case.run())]
    found = by_setting(rows)["3m/kpg"]
    assert list(found) == [1, 2]
    assert found[1].ours == found[1].one == found[2].one
    assert min(value for level in found.values() for value in level) > 0
