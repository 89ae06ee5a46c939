"""What the command line says and does about StarCraft II, on the stand-in and without any game."""

import json
from importlib.util import find_spec

import pytest

pytest.importorskip("s2clientprotocol.sc2api_pb2", reason="pip install 'kpg_fast[smac]'")
pytest.importorskip("websocket", reason="pip install 'kpg_fast[smac]'")

from starcraft import set_faults

from kpg_fast.command_line.main import main
from kpg_fast.envs import smac
from kpg_fast.runs.records import Run

pytestmark = pytest.mark.usefixtures("no_plot")
SMALL = "--num-envs 2 --num-steps 30 --num-epochs 1 --hidden 8 --eval-every 0 --eval-episodes 2 --env-options stagger=0"


def test_the_flags_reach_the_game_and_results_say_what_played(game, tmp_path, capsys):
    set_faults(game, {"kind": "crash", "at": 40, "times": 1})
    run_dir = tmp_path / "run"
    flags = f"--client native --sync --bootstrap-time-limit {SMALL} --total-steps 180 --run-dir {run_dir}"
    assert main(["train", "k-mappo", "smac/3m", *flags.split()]) == 0
    said = capsys.readouterr().out
    assert "k-mappo K=2 on smac/3m (game stand-in 4.10.0, native client), seed 0" in said
    assert "lost episodes 1" in said
    options = json.loads((run_dir / "config.json").read_text())["env_options"]
    assert options == ["stagger=0", "client=native", "sync=True", "bootstrap_time_limit=True"]
    result = json.loads((run_dir / "result.json").read_text())
    assert result["facts"] == {
        "map": "3m",
        "difficulty": "7",
        "client": "native",
        "game_version": "stand-in 4.10.0",
    }
    assert Run.read(run_dir).task == "smac/3m (game stand-in 4.10.0, native client)"
    (names,) = json.loads((run_dir / "marl_eval.json").read_text()).values()
    assert list(names) == ["3m (game stand-in 4.10.0, native client)"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("smac/3m", ["client='smac'", "oxwhirl/smac", "client='native'"]),
        ("smac/3m --client other", ["other"]),
        ("smac/3z --client native", ["3z", "did you mean"]),
        ("smac/3m --client native --env-options dificulty=3", ["dificulty", "difficulty"]),
        ("smac/3m --client native --env-options game_version=4.9.9", ["4.9.9"]),
        ("smax/3m --client native", ["client"]),
    ],
)
def test_what_cannot_be_played_is_said_in_a_line(game, tmp_path, capsys, monkeypatch, arguments, parts):
    if "oxwhirl/smac" in parts and find_spec("smac") is not None:
        pytest.skip("github.com/oxwhirl/smac is installed")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "k-mappo", *arguments.split()]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    for part in parts:
        assert part in message, message
    assert list(tmp_path.iterdir()) == []


def test_without_the_game_the_doctor_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SC2PATH", str(tmp_path / "nowhere"))
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"no      smac: SC2PATH: no folder {tmp_path / 'nowhere'} (SC2PATH); download the game from https" in said
    for step in ("client native", "client smac (smac)", "client smac (smacv2)", "protobuf"):
        assert f" smac: {step}: " in said
    assert main(["doctor", "--smac-parity"]) == 2
    assert "StarCraft II is not at" in capsys.readouterr().err


def test_the_doctor_sees_every_step(game, capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"ok      smac: SC2PATH: {game} (SC2PATH)" in said
    assert "ok      smac: version: 4.6.2 (build 69232), 4.10.0 (build 75689)" in said
    assert "ok      smac: maps of SMAC: 23 of 23" in said
    assert "ok      smac: map of SMACv2: 1 of 1" in said
    (game / "Maps" / "SMAC_Maps" / "MMM.SC2Map").rename(game / "MMM")
    try:
        assert main(["doctor"]) == 0
        assert "no      smac: maps of SMAC: 22 of 23" in capsys.readouterr().out
    finally:
        (game / "MMM").rename(game / "Maps" / "SMAC_Maps" / "MMM.SC2Map")


@pytest.mark.parametrize("agree", [True, False])
def test_the_comparison_of_the_clients_decides_the_exit_code(capsys, monkeypatch, agree):
    monkeypatch.setattr(smac, "compare_clients", lambda: iter([("3m", True, "equal"), ("MMM", agree, "so far")]))
    assert main(["doctor", "--smac-parity"]) == (0 if agree else 1)
    assert f"{'ok     ' if agree else 'no     '} smac/MMM: so far" in capsys.readouterr().out
