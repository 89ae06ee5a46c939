"""Plots: one figure of one or many runs, grouped by configuration."""

import json
from pathlib import Path

import numpy as np
import pytest

from kpg_fast.errors import UsageError
from kpg_fast.runs.plot import draw, on_one_grid
from kpg_fast.runs.records import Run, find_runs, group_runs
from tests.made_runs import UPDATES, made_run


def test_figure_says_what_it_shows(tmp_path: Path) -> None:
    for levels in (1, 2):
        for seed in range(3):
            made_run(tmp_path / "runs" / f"K{levels}" / f"seed{seed}", seed, levels=levels)
    png, svg = draw(find_runs([tmp_path / "runs"]), tmp_path / "all")
    assert png.read_bytes()[:4] == b"\x89PNG"
    text = svg.read_text()
    for part in (
        "k-mappo, K = 1, 2, smax/2s3z (default flavour)",
        "k-mappo K=1 (3 seeds)",
        "k-mappo K=2 (3 seeds)",
        "win rate",
        "return",
        "environment steps (millions)",
        "wall-clock (minutes",
        "95 % stratified bootstrap",
    ):
        assert part in text, part  # letters are drawn as paths, with the text in a comment
    assert text.count('id="FillBetweenPolyCollection_') == 8  # a band in each of four panels for each K


def test_one_seed_has_no_band(tmp_path: Path) -> None:
    made_run(tmp_path / "run")
    _, svg = draw(find_runs([tmp_path / "run"]), tmp_path / "one")
    assert "PolyCollection" not in svg.read_text()
    assert "k-mappo K=2 (1 seed)" in svg.read_text()


def test_several_environments_share_one_stratified_row(tmp_path: Path) -> None:
    for env in ("3m", "8m"):
        for seed in range(2):
            made_run(tmp_path / f"{env}{seed}", seed, env=f"smax/{env}")
    _, svg = draw(find_runs([tmp_path]), tmp_path / "both")
    text = svg.read_text()
    assert "all environments: win rate" in text
    assert "k-mappo K=2 (4 runs)" in text


def test_runs_without_a_line_are_left_out(tmp_path: Path) -> None:
    made_run(tmp_path / "empty", updates=0)
    with pytest.raises(UsageError, match="nothing to plot"):
        draw(find_runs([tmp_path / "empty"]), tmp_path / "plot")
    made_run(tmp_path / "other", seed=1)
    draw(find_runs([tmp_path]), tmp_path / "plot")


def test_an_evaluation_alone_is_drawn(tmp_path: Path) -> None:
    """Of a run so short that no episode ended in training."""
    path = made_run(tmp_path / "run")
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    lines = [{k: v for k, v in line.items() if k not in ("win_rate", "return_mean")} for line in lines]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, svg = draw(find_runs([path]), tmp_path / "dots")
    assert "win rate" in svg.read_text()
    with pytest.raises(UsageError, match="cannot name the files"):
        draw(find_runs([path]), Path())
    (path / "metrics.jsonl").write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(UsageError, match="nothing to plot"):
        draw(find_runs([path]), tmp_path / "nothing")


def test_groups_are_labelled_by_what_differs(tmp_path: Path) -> None:
    made_run(tmp_path / "a", 0, lr=0.001)
    made_run(tmp_path / "b", 1, lr=0.001, checkpoint_every=7)
    made_run(tmp_path / "c", 0, lr=0.002, levels=1)
    groups = group_runs(find_runs([tmp_path]))
    assert {label: len(runs) for label, runs in groups.items()} == {
        "k-mappo K=2 lr=0.001": 2,
        "k-mappo K=1 lr=0.002": 1,
    }


def test_algorithms_are_labelled_by_what_differs_in_their_own_runs(tmp_path: Path) -> None:
    made_run(tmp_path / "a", lr=0.001)
    made_run(tmp_path / "b", lr=0.002)
    made_run(tmp_path / "c", algorithm="k-facmac")
    groups = group_runs(find_runs([tmp_path]))
    assert list(groups) == ["k-mappo K=2 lr=0.001", "k-mappo K=2 lr=0.002", "k-facmac K=2"]


def test_no_common_row_where_nobody_played_all(tmp_path: Path) -> None:
    made_run(tmp_path / "a", env="smax/3m")
    made_run(tmp_path / "b", env="smax/8m", levels=1)
    _, svg = draw(find_runs([tmp_path]), tmp_path / "plot")
    assert "smax/8m" in svg.read_text()
    assert "all environments" not in svg.read_text()


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_long_labels_leave_room_for_the_curves(tmp_path: Path) -> None:
    many = {
        "optimizer": "rmsprop", "max_grad_norm": 10.0, "num_epochs": 2, "gae_lambda": 0.9, "ent_coef": 0.5,
        "value_norm": True, "death_mask": True, "shared_actor": False, "recurrent": False, "clip_eps": 0.123456,
    }  # fmt: skip
    made_run(tmp_path / "a")
    made_run(tmp_path / "b", **many)
    _, svg = draw(find_runs([tmp_path]), tmp_path / "all")
    assert "clip_eps=0.123456" in svg.read_text()


def test_one_run_is_not_two(tmp_path: Path) -> None:
    made_run(tmp_path / "a")
    made_run(tmp_path / "b")
    with pytest.raises(UsageError, match="same configuration and seed"):
        group_runs(find_runs([tmp_path]))
    assert len(find_runs([tmp_path / "a", tmp_path])) == 2  # named twice, read once


def test_finished_or_not(tmp_path: Path) -> None:
    assert Run.read(made_run(tmp_path / "whole")).evaluation.keys() == {
        "eval/win_rate",
        "eval/return_mean",
        "eval/length_mean",
    }
    assert Run.read(made_run(tmp_path / "half", updates=UPDATES // 2, evaluations=2)).evaluation == {}


def test_curves_meet_on_the_stretch_they_share() -> None:
    one = np.array([[0.0, 10.0, 20.0], [0.0, 1.0, 2.0]])
    other = np.array([[5.0, 15.0], [10.0, 30.0]])
    grid, values = on_one_grid([one, other])
    assert (grid[0], grid[-1]) == (5.0, 15.0)
    np.testing.assert_allclose(values[0], grid / 10)
    np.testing.assert_allclose(values[1], 2 * grid)
    same, _ = on_one_grid([one, one])
    np.testing.assert_array_equal(same, one[0])


def test_no_win_rate_where_nobody_wins(tmp_path: Path) -> None:
    made_run(tmp_path / "run", env="mamujoco/HalfCheetah-2x3", preset="jaxmarl")
    _, svg = draw(find_runs([tmp_path / "run"]), tmp_path / "plot")
    assert "return" in svg.read_text()
    assert "win rate" not in svg.read_text()
