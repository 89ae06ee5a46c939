"""The command line: every flag is frozen, bad input ends with exit code 2, one clear line and nothing half-written."""

import dataclasses
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from kpg_fast.command_line.main import COMMANDS, TRAIN, main
from kpg_fast.config import Config
from kpg_fast.k_mappo_settings import PRESETS, KMappo
from kpg_fast.off_policy.settings import OffPolicy
from kpg_fast.store import checkpoint
from tests.fake_trainer import SMALL, FakeTrainer

pytestmark = pytest.mark.usefixtures("no_plot")
FROZEN = Path(__file__).with_name("command_line.txt")
TRAIN_SMALL = ["train", "k-mappo", "smax/2s3z", *SMALL, "--total-steps", "128"]


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")  # one column of help


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 4 updates."""
    path = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kpg_fast.runs.run.make_trainer", FakeTrainer)
        patch.setattr("kpg_fast.runs.result.find_spec", lambda name: None)
        assert main([*TRAIN_SMALL, "--run-dir", str(path)]) == 0
    return path


@pytest.fixture
def run_dir(tmp_path: Path, finished_run: Path, fake_trainer: type[FakeTrainer]) -> Path:
    """The finished run, in this test's directory as ``run``."""
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], *parts: str) -> None:
    """The command line is refused, the message holds ``parts``, and the directory is as it was."""
    before = {path: path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    for part in parts:
        assert part in message, message
    assert {path: path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()} == before


def surface(capsys: pytest.CaptureFixture[str]) -> str:
    """Every command with its flags, their values and defaults, as --help shows them."""
    lines = []
    commands = [["train", algorithm] for algorithm in TRAIN] + [[c] for c in COMMANDS if c not in ("train", "bench")]
    for command in commands:
        capsys.readouterr()
        assert main([*command, "--help"]) == 0
        text = re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out)
        positional = re.findall(r"^  ([A-Z_.]+)  ", text, re.MULTILINE)
        flags = re.findall(r"^  (--[a-z0-9-]+)(?:, (--[a-z0-9-]+))?", text, re.MULTILINE)
        lines.append(" ".join(command + positional))
        lines += [f"    {' '.join(filter(None, names))}" for names in flags]
    for config in (Config, KMappo, OffPolicy):
        lines.append(f"defaults of {config.__name__}")
        for f in dataclasses.fields(config):
            if f.name != "settings":
                choices = " | ".join(get_args(f.type)) if get_origin(f.type) is Literal else f.type
                lines.append(f"    {f.name} = {f.default} ({getattr(choices, '__name__', choices)})")
    return "\n".join(lines) + "\n"


def test_command_line_is_frozen(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that goes or changes breaks somebody's script: change command_line.txt knowingly."""
    assert surface(capsys) == FROZEN.read_text()


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert all(command in overview for command in COMMANDS)
    assert main([]) == 2
    assert main(["--version"]) == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_gives_the_defaults_that_help_shows(capsys: pytest.CaptureFixture[str], preset: str) -> None:
    assert main(["train", "k-mappo", "--preset", preset, "--help"]) == 0
    text = capsys.readouterr().out
    shown = re.search(r"--num-envs INT.*?\(default: (\d+)\)", text, re.DOTALL)
    assert shown
    assert int(shown[1]) == PRESETS[preset].num_envs


def test_a_flag_that_looks_like_an_environment_is_none(fake_trainer: type[FakeTrainer], tmp_path: Path) -> None:
    small = [argument for argument in TRAIN_SMALL if argument != "smax/2s3z"]
    assert main([*small, "--run-dir", "smac/2s3z", "--seeds", "0", "--env-options", "a=1", "--", "smax/2s3z"]) == 0
    assert json.loads((tmp_path / "smac" / "2s3z" / "config.json").read_text())["preset"] == "jaxmarl"


def test_flags_reach_the_configuration(fake_trainer: type[FakeTrainer], tmp_path: Path) -> None:
    options = "--env-options flavour=jaxmarl a=1 game_version=4.10"
    flags = f"--preset kpg --levels 3 --lr 1e-3 --no-anneal-lr --clip-mode double {options}"
    assert main([*TRAIN_SMALL, *flags.split(), "--seeds", "5", "--run-dir", "r"]) == 0
    config = Config.from_dict(json.loads((tmp_path / "r" / "config.json").read_text()))
    assert (config.levels, config.seed, config.preset, config.total_steps) == (3, 5, "kpg", 128)
    assert config.options() == {"flavour": "jaxmarl", "a": 1, "game_version": "4.10"}
    s = config.settings
    assert (s.lr, s.anneal_lr, s.clip_mode, s.num_envs, s.num_epochs) == (1e-3, False, "double", 4, 2)


def test_seeds_one_after_another(
    fake_trainer: type[FakeTrainer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN_SMALL, "--seeds", "0", "3..3", "--run-dir", "runs"]) == 0
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"seed0", "seed3", "plot.png", "plot.svg"}
    assert "run directory runs/seed3" in capsys.readouterr().out


def test_default_run_directory(fake_trainer: type[FakeTrainer], tmp_path: Path) -> None:
    assert main(TRAIN_SMALL) == 0
    assert main(TRAIN_SMALL) == 0
    made = [path.name for path in (tmp_path / "runs").iterdir()]
    assert len(made) == 2
    assert all(name.startswith("k-mappo_K2_smax-2s3z_") for name in made)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_says_how_to_resume(
    fake_trainer: type[FakeTrainer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    original = fake_trainer.update

    def update(self: FakeTrainer) -> dict[str, float]:
        if self.updates == 1:
            os.kill(os.getpid(), number)
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(fake_trainer, "update", update)
        assert main([*TRAIN_SMALL, "--seeds", "0", "1", "--run-dir", "runs"]) == 0
    said = capsys.readouterr().out
    assert "stopped after update 2; to go on: kpg-fast resume runs/seed0" in said
    assert "not started: seeds 1" in said
    assert main(["resume", "runs/seed0"]) == 0
    assert "update 4/4" in capsys.readouterr().out


def test_eval_plot_export(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "run", "--episodes", "7"]) == 0
    assert "eval/episodes 7" in capsys.readouterr().out
    assert main(["eval", "run/checkpoints/best"]) == 0
    assert main(["plot", "run", "--out", "curves"]) == 0
    assert Path("curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in Path("curves.svg").read_text()
    assert main(["export", "run", "--out", "out"]) == 0
    assert {path.name for path in Path("out").iterdir()} == {"marl_eval.json", "metrics.csv"}


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in ("k-mappo", "kpg", "jaxmarl", "smax/", "2s3z", "toy/", "meetup"):
        assert name in text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trian"], ["'trian'", "did you mean train?"]),
        (["train", "k-mapo", "smax/3m"], ["'k-mapo'", "did you mean k-mappo"]),
        (["train", "k-mappo"], ["ENV"]),
        (["train", "k-mappo", "smax/2s3y"], ["2s3y", "2s3z"]),
        (["train", "k-mappo", "smaxx/2s3z"], ["smaxx", "did you mean smax"]),
        (["train", "k-mappo", "smax/3m", "--lvels", "2"], ["--lvels", "--levels"]),
        (["train", "k-mappo", "smax/3m", "--preset", "kgp"], ["'kgp'", "did you mean kpg?"]),
        (["train", "k-mappo", "smax/3m", "--clip-mode", "doubel"], ["doubel", "did you mean double?"]),
        (["train", "k-mappo", "smax/3m", "--optimizer=adm"], ["'adm'", "did you mean adam?"]),
        (["train", "k-mappo", "smax/3m", "--levels", "two"], ["--levels", "two"]),
        (["train", "k-mappo", "smax/3m", "--levels", "0"], ["levels = 0", "at least 1"]),
        (["train", "k-mappo", "smax/3m", "--num-minibatches", "5"], ["does not divide num_envs = 128", "4, 2, 8"]),
        (["train", "k-mappo", "smax/3m", "--lr", "-1"], ["lr = -1"]),
        (["train", "k-mappo", "smax/3m", "--lr", "nan"], ["lr = nan"]),
        (["train", "k-mappo", "smax/3m", "--lr", "inf"], ["lr = inf"]),
        (["train", "k-mappo", "smax/3m", "--ent-coef", "-1"], ["ent_coef = -1"]),
        (["train", "k-mappo", "smax/3m", "--seeds", "4294967296"], ["seed = 4294967296"]),
        (["train", "k-mappo", "smax/3m", "--env-options", "max_steps=abc"], ["max_steps", "'abc'"]),
        (["train", "k-mappo", "mamujoco/Ant-4x2", "--initial-std", "0"], ["initial_std = 0", "above 0"]),
        (["train", "kpg", "toy/meetup", "--seed", "-1"], ["seed = -1"]),
        (["train", "kpg", "toy/meetup", "--lr", "1e200"], ["lr = 1e+200"]),
        (["train", "k-mappo", "smax/3m", "--total-steps", "10"], ["total_steps = 10"]),
        (["train", "k-mappo", "smax/3m", "--seeds"], ["seeds"]),
        (["train", "k-mappo", "smax/3m", "--seeds", "1", "1"], ["none twice"]),
        (["train", "k-mappo", "smax/3m", "--seeds", "0..3", "2"], ["none twice"]),
        (["train", "k-mappo", "smax/3m", "--seeds=3..1"], ["seeds 3..1: a range goes up"]),
        (["train", "k-mappo", "smax/3m", "--env-options", "flavour"], ["name=value"]),
        (["train", "k-mappo", "smax/3m", "--env-options", "seed=3"], ["seed=3", "a setting of its own"]),
        (["train", "k-facmac", "smax/3m", "--env-options", "device=cuda"], ["device=cuda", "a setting of its own"]),
        (["train", "k-mappo", "smax/3m", "--env-options", "auto_reset=false"], ["auto_reset", "new episode"]),
        (["train", "k-mappo", "smax/3m", "--env-options", "a=1", "a=2"], ["'a' is given twice"]),
        (["train", "k-mappo", "smax/3m", "--env-options", "flavor=jaxmarl"], ["flavor", "flavour"]),
        (["train", "kpg", "toy/metup"], ["meetup"]),
        (["train", "kpg", "toy/meetup", "--levels", "0"], ["levels = 0"]),
        (["resume"], ["RUN_DIR"]),
        (["resume", "nowhere"], ["nowhere is not a run directory"]),
        (["eval", "nowhere"], ["no checkpoint at nowhere"]),
        (["plot", "nowhere"], ["no run directory at nowhere"]),
        (["plot"], ["at least one run directory"]),
        (["export", "nowhere"], ["no run directory at nowhere"]),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], arguments: list[str], parts: list[str]) -> None:
    fails(capsys, arguments, *parts)
    assert not list(Path.cwd().iterdir())


def test_run_directory_exists(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, [*TRAIN_SMALL, "--run-dir", "run"], "run directory run exists", "kpg-fast resume run")
    fails(capsys, [*TRAIN_SMALL, "--run-dir", "run", "--seeds", "0", "1"], "run directory run exists")


def test_run_directory_is_below_a_file(fake_trainer: type[FakeTrainer], capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    fails(capsys, [*TRAIN_SMALL, "--run-dir", "file/run"], "cannot write file/run", "not a directory")


@pytest.fixture
def unprivileged(tmp_path: Path) -> Iterator[None]:
    """Root may write everywhere; be somebody else for a while."""
    (tmp_path / "readable").mkdir(mode=0o555)
    (tmp_path / "locked").mkdir(mode=0o000)
    opened = [path for path in (tmp_path, *tmp_path.parents) if path.stat().st_mode & 0o777 == 0o700]
    for path in opened:
        path.chmod(0o711)
    user = os.geteuid()
    os.seteuid(user or 65534)
    yield
    os.seteuid(user)
    for path in opened:
        path.chmod(0o700)


@pytest.mark.parametrize(
    "arguments",
    [
        [*TRAIN_SMALL, "--run-dir", "readable/run"],
        [*TRAIN_SMALL, "--run-dir", "readable/deeper/run", "--seeds", "0", "1"],
        [*TRAIN_SMALL, "--run-dir", "locked/run"],
        ["resume", "locked/run"],
        ["eval", "locked/run"],
    ],
)
def test_no_permission(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], unprivileged: None, arguments: list[str]
) -> None:
    """Refused before anything is built: that may take a minute."""
    monkeypatch.delattr("kpg_fast.runs.run.make_trainer")
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "permission" in message.lower()
    assert message.count("\n") == 1


def test_results_that_cannot_be_written(run_dir: Path, capsys: pytest.CaptureFixture[str], unprivileged: None) -> None:
    for command in ("plot", "export"):
        assert main([command, "run", "--out", "readable/out"]) == 2
        assert "cannot write readable/out" in capsys.readouterr().err


def test_checkpoint_of_another_shape(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = run_dir / "config.json"
    config.write_text(config.read_text().replace('"hidden": 6', '"hidden": 7'))
    fails(capsys, ["resume", "run"], "hidden = 7", "its checkpoint 6")
    fails(capsys, ["eval", "run"], "weight has shape (6,)")


def test_real_trainer_refuses_a_checkpoint_of_another_shape(capsys: pytest.CaptureFixture[str]) -> None:
    from kpg_fast.k_mappo_trainer import KMappoTrainer

    configs = [
        Config.make(env="toy/climbing", hidden=h, num_envs=2, num_steps=2, num_minibatches=1, total_steps=4)
        for h in (6, 7)
    ]
    trainers = [KMappoTrainer(config) for config in configs]
    meta = {"config": configs[1].to_dict(), "counters": trainers[0].counters()}
    checkpoint.save(Path("other"), trainers[0].tensors(), meta)
    fails(capsys, ["eval", "other"], "shape")


@pytest.mark.parametrize("damage", ["truncate", "alter", "remove", "manifest"])
def test_damaged_checkpoint(run_dir: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    last = run_dir / "checkpoints" / "last"
    tensors = next(last.glob("*.safetensors"))
    data = tensors.read_bytes()
    if damage == "truncate":
        tensors.write_bytes(data[:-1])
    elif damage == "alter":
        tensors.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "remove":
        tensors.unlink()
    else:
        manifest = last / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"updates": 4', '"updates": 5'))
    word = {"truncate": "truncated", "alter": "altered", "remove": "missing", "manifest": "altered"}[damage]
    for command in ("resume", "eval"):
        fails(capsys, [command, "run"], word, "checkpoints/last")


def test_damaged_provenance(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("{", "[]", "null", "{}", '{"facts": null}'):
        (run_dir / "provenance.json").write_text(text)
        for command in ("resume", "plot", "export"):
            fails(capsys, [command, "run"], "provenance.json cannot be read")


def test_a_run_goes_on_as_it_began(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run_dir / "config.json"
    was = file.read_text()
    file.write_text(was.replace('"seed": 0', '"seed": 9'))
    fails(capsys, ["resume", "run"], "seed = 9", "its checkpoint 0")
    file.write_text(was.replace('"eval_every": 0', '"eval_every": 64'))
    assert main(["resume", "run"]) == 0


def test_finished_run_without_its_metrics(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_dir / "metrics.jsonl").unlink()
    with pytest.warns(UserWarning, match="lines were lost"):
        assert main(["resume", "run"]) == 2
    assert "no result to write" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", '{"algorithm": "k-mappo"}', '{"levels": 0, "settings": {}, "env_options": []}'])
def test_damaged_configuration(run_dir: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (run_dir / "config.json").write_text(text)
    for command in ("resume", "eval", "plot", "export"):
        fails(capsys, [command, "run"])


def test_damaged_metrics(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = run_dir / "metrics.jsonl"
    log.write_text("{}\n" + log.read_text())
    for command in ("resume", "plot", "export"):
        fails(capsys, [command, "run"], "metrics.jsonl, line 1")


def test_results_that_cannot_be_named(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, ["plot", "run", "--out", "."], "cannot name the files")
    for video in ("film.avi", "missing/film.gif"):
        fails(capsys, ["eval", "run", "--video", video], video)
        assert "eval/" not in capsys.readouterr().out  # said before anything is played


def test_the_same_run_twice(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run_dir, "again")
    fails(capsys, ["plot", "run", "again"], "same configuration and seed")


def test_toy_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "kpg", "toy/meetup", "--levels", "2", "--steps", "3", "--run-dir", "toy"]) == 0
    assert (Path("toy") / "paths.png").exists()
    assert "distance/2" in capsys.readouterr().out
    fails(capsys, ["train", "kpg", "toy/meetup", "--run-dir", "toy"], "toy exists")
    fails(capsys, ["plot", "toy"], "no run directory at toy")
    for command in ("resume", "eval"):
        fails(capsys, [command, "toy"], "toy is a run on a toy game: finished when it was made")
