import io
from pathlib import Path

import pytest
from rich.console import Console

from kpg_fast.config import Config
from kpg_fast.runs.display import Display
from kpg_fast.runs.progress import Lines, Progress, Silent
from tests.fake_trainer import FakeTrainer


def trainer(env: str = "smax/2s3z") -> FakeTrainer:
    return FakeTrainer(Config.make(env=env, num_envs=4, num_steps=8, num_minibatches=2, total_steps=128))


def follow(progress: Progress, env: str = "smax/2s3z") -> None:
    """What the run loop does with it."""
    fake = trainer(env)
    with progress:
        progress.begin(fake, Path("runs/x"))
        while fake.updates < fake.num_updates:
            metrics = fake.update()
            if fake.updates == fake.num_updates:
                metrics |= fake.evaluate(3)
            progress.update({"update": fake.updates, "env_steps": fake.env_steps, "seconds": 1.0} | metrics)


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    follow(Lines())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "k-mappo K=2 on smax/2s3z (fake flavour), seed 0, run directory runs/x"
    assert "steps 32/128" in lines[1]
    assert "eta -" in lines[1]  # the first update says nothing about the rest
    warnings = [line for line in lines if line.startswith("warning")]
    assert len(warnings) == 1
    assert "contraction ratio 1.50 > 1 at update 2" in warnings[0]
    assert "--lr" in warnings[0]
    for part in (
        "steps 128/128",
        "update 4/4",
        "eta 0:00",
        "env_sps 1,000",
        "agent_sps 3,000",
        "win 1.000",
        "greedy win 1.000",
        "time env 12% policy 25% levels 50% critic 12%",
    ):
        assert part in lines[-1]
    assert len(lines) == 4  # no line for every update


def test_no_win_rate_where_nobody_wins(capsys: pytest.CaptureFixture[str]) -> None:
    follow(Lines(), "mamujoco/Ant-4x2")
    said = capsys.readouterr().out
    assert "greedy return" in said
    assert " win " not in said


def test_python_warns_of_what_a_silent_run_would_show() -> None:
    with pytest.warns(UserWarning, match=r"contraction ratio 1.50 > 1 at update 2") as warned:
        follow(Silent())
    assert len(warned) == 1


def test_display_on_a_terminal() -> None:
    display = Display()
    screen = io.StringIO()
    display.live.console = Console(file=screen, force_terminal=True, width=100)
    follow(display)
    shown = screen.getvalue()
    for part in ("128/128", "env_sps", "agent_sps", "eta", "greedy win", "contraction ratio", "━"):
        assert part in shown
