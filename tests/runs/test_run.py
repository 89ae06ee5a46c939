"""The run loop: what it keeps, how it stops, and that a resumed run equals one that was never stopped."""

import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import imageio.v3
import pytest
import torch

import kpg_fast
from kpg_fast import Config
from kpg_fast.errors import EnvironmentFailure, UsageError
from kpg_fast.runs import metrics
from kpg_fast.runs.progress import Silent
from kpg_fast.runs.replay import record
from kpg_fast.runs.run import RunResult, evaluate, load, resume, train
from kpg_fast.runs.stop import StopRequest
from kpg_fast.store import checkpoint
from tests.fake_trainer import FakeTrainer

pytestmark = pytest.mark.usefixtures("no_plot")
TIMING = {"seconds", "env_sps", "agent_sps"}


def small(path: Path, updates: int = 6, **values: object) -> Config:
    shape = {"num_envs": 4, "num_steps": 8, "num_minibatches": 2, "hidden": 6, "eval_episodes": 3}
    return Config.make(total_steps=32 * updates, run_dir=str(path), **(shape | values))


def stop_at(
    monkeypatch: pytest.MonkeyPatch, trainer: type, update: int, number: signal.Signals, method: str = "update"
) -> None:
    """Send this process a signal while ``update`` is being done."""
    original = getattr(trainer, method)

    def with_signal(self: FakeTrainer) -> object:
        if self.updates + 1 == update:
            os.kill(os.getpid(), number)
        return original(self)

    monkeypatch.setattr(trainer, method, with_signal)


def lines(run_dir: Path) -> list[dict[str, float]]:
    """The metrics without what a clock had a part in; NaN by its text, so that lines can be compared."""
    return [
        {name: repr(value) for name, value in line.items() if name not in TIMING and not name.startswith("time/")}
        for line in metrics.read(run_dir / "metrics.jsonl")
    ]


def assert_same_run(one: RunResult, other: RunResult) -> None:
    assert one.finished
    assert other.finished
    assert (one.updates, one.env_steps) == (other.updates, other.env_steps)
    assert lines(one.run_dir) == lines(other.run_dir)
    for name in ("last", "best"):
        tensors, meta = checkpoint.load(one.run_dir / "checkpoints" / name)
        others, other_meta = checkpoint.load(other.run_dir / "checkpoints" / name)
        assert tensors.keys() == others.keys()
        for key, tensor in tensors.items():
            # bytes, so that a NaN in unused memory equals itself
            assert torch.as_tensor(tensor).numpy().tobytes() == torch.as_tensor(others[key]).numpy().tobytes(), key
        assert meta["counters"] == other_meta["counters"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_finishes_the_update_saves_and_resumes_exactly(
    tmp_path: Path, fake_trainer: type[FakeTrainer], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    options = {"eval_every": 64, "eval_every_episodes": 2}
    whole = train(small(tmp_path / "whole", **options))
    with monkeypatch.context() as patch:
        stop_at(patch, fake_trainer, 3, number)
        handler = signal.getsignal(number)
        stopped = train(small(tmp_path / "stopped", **options))
        assert signal.getsignal(number) is handler
    assert not stopped.finished
    assert stopped.updates == 3
    assert not (stopped.run_dir / "result.json").exists()
    assert checkpoint.load(stopped.run_dir / "checkpoints" / "last")[1]["counters"]["updates"] == 3
    assert_same_run(whole, resume(stopped.run_dir))


def test_signal_between_two_updates_loses_nothing(
    tmp_path: Path, fake_trainer: type[FakeTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Rude(Silent):
        def update(self, metrics: dict[str, float]) -> None:
            if metrics["update"] == 2:  # this update is logged and was not the last when it was saved or not
                os.kill(os.getpid(), signal.SIGTERM)

    stopped = train(small(tmp_path / "run"), Rude())
    assert stopped.updates == 3
    assert checkpoint.load(stopped.run_dir / "checkpoints" / "last")[1]["counters"]["updates"] == 3


def test_killed_run_goes_on_from_its_last_checkpoint(
    tmp_path: Path, fake_trainer: type[FakeTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(small(tmp_path / "whole", checkpoint_every=2))
    original = fake_trainer.update

    def killed(self: FakeTrainer) -> dict[str, float]:
        if self.updates == 5:
            raise ConnectionError("killed")  # as good as: nothing after update 4's checkpoint is saved
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(fake_trainer, "update", killed)
        with pytest.raises(ConnectionError):
            train(small(tmp_path / "killed", checkpoint_every=2))
    log = tmp_path / "killed" / "metrics.jsonl"
    assert len(metrics.read(log)) == 5
    log.write_text(log.read_text() + '{"update": 6, "env_st')
    done = []
    monkeypatch.setattr(fake_trainer, "update", lambda self: done.append(self.updates + 1) or original(self))
    assert_same_run(whole, resume(tmp_path / "killed"))
    assert done == [5, 6]


def test_environment_that_cannot_go_on_leaves_a_checkpoint(
    tmp_path: Path, fake_trainer: type[FakeTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = fake_trainer.update

    def fail(self: FakeTrainer) -> dict[str, float]:
        if self.updates == 3:
            raise EnvironmentFailure("the game crashed five times")
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(fake_trainer, "update", fail)
        with pytest.raises(EnvironmentFailure, match=r"five times\n.*kpg-fast resume .*run"):
            train(small(tmp_path / "run"))
    assert load(tmp_path / "run").updates == 3
    assert_same_run(train(small(tmp_path / "whole")), resume(tmp_path / "run"))


def test_run_killed_before_its_first_checkpoint_starts_again(
    tmp_path: Path, fake_trainer: type[FakeTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(small(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(fake_trainer, "update", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(small(tmp_path / "killed"))
    assert_same_run(whole, resume(tmp_path / "killed"))


def test_resume_of_a_finished_run_changes_nothing(tmp_path: Path, fake_trainer: type[FakeTrainer]) -> None:
    result = train(small(tmp_path / "run"))
    before = (result.run_dir / "metrics.jsonl").read_text()
    again = resume(result.run_dir)
    assert again == result
    assert (result.run_dir / "metrics.jsonl").read_text() == before


def test_finished_run_goes_on_as_one_that_was_made_longer(tmp_path: Path) -> None:
    shape = {"num_envs": 4, "num_steps": 50, "hidden": 6, "warmup": 4, "updates_per_sample": 0.1}
    shape |= {"eval_episodes": 4, "eval_every_episodes": 4}

    def made(name: str, total_steps: int) -> RunResult:
        path = str(tmp_path / name)
        values = {"preset": "smac", "levels": 2, "eval_every": 400, "run_dir": path, "total_steps": total_steps}
        return train(Config.make("k-facmac", "toy/climbing", **values, **shape))

    whole, short = made("whole", 800), made("short", 400)
    assert resume(short.run_dir).updates == short.updates == 2
    longer = resume(short.run_dir, total_steps=800)
    assert_same_run(whole, longer)
    assert float(lines(whole.run_dir)[-1]["learned"]) > 0
    assert json.loads((longer.run_dir / "config.json").read_text())["total_steps"] == 800
    assert json.loads((longer.run_dir / "result.json").read_text())["env_steps"] == 800


def test_run_with_a_replay_file_goes_on_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"preset": "smac", "num_envs": 4, "num_steps": 50, "hidden": 6, "warmup": 4, "updates_per_sample": 0.1}
    values |= {"replay_dir": "replay", "run_dir": "run", "total_steps": 200, "eval_episodes": 4}
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert train(Config.make("k-facmac", "toy/climbing", **values)).run_dir == Path("run")
    assert len(list(Path("replay").iterdir())) == 1
    monkeypatch.chdir(tmp_path / "there")
    assert resume(Path("..") / "here" / "run", total_steps=400).env_steps == 400
    assert not list(Path.cwd().iterdir())
    Path("../here/run").rename("moved")
    assert evaluate("moved", 2)["eval/episodes"] >= 2
    with pytest.raises(UsageError, match=r"replay file .* is missing .*moved"):
        resume("moved", total_steps=600)


def test_divergence_is_warned_of_once(
    tmp_path: Path, fake_trainer: type[FakeTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = fake_trainer.update

    def diverge(self: FakeTrainer) -> dict[str, float]:
        return original(self) | {"contraction_ratio": 0.5, "grad_norm": math.nan if self.updates > 2 else 1.0}

    monkeypatch.setattr(fake_trainer, "update", diverge)
    with pytest.warns(UserWarning, match="grad_norm is not finite at update 3") as caught:
        train(small(tmp_path / "run"))
    assert len(caught) == 1


def test_run_cannot_end_before_its_end(
    tmp_path: Path, fake_trainer: type[FakeTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = train(small(tmp_path / "done", anneal_lr=False))
    with pytest.raises(UsageError, match=r"total_steps = 64: .*done has done 192 already"):
        resume(done.run_dir, total_steps=64)
    with monkeypatch.context() as patch:
        stop_at(patch, fake_trainer, 3, signal.SIGTERM)
        stopped = train(small(tmp_path / "stopped", anneal_lr=False))
    with pytest.raises(UsageError, match=r"total_steps = 96: .*stopped has done 96 already"):
        resume(stopped.run_dir, total_steps=96)  # it would end without a final evaluation
    assert resume(stopped.run_dir, total_steps=128).metrics["eval/episodes"] == 3
    annealed = train(small(tmp_path / "annealed"))
    with pytest.raises(UsageError, match=r"annealed over total_steps = 192; .*--no-anneal-lr"):
        resume(annealed.run_dir, total_steps=320)
    for run_dir in (done.run_dir, annealed.run_dir):
        assert json.loads((run_dir / "config.json").read_text())["total_steps"] == 192
        assert resume(run_dir).finished


def test_what_a_run_was_resumed_with_is_kept(
    tmp_path: Path, fake_trainer: type[FakeTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, fake_trainer, 3, signal.SIGTERM)
        train(small(tmp_path / "run"))
    first = json.loads((tmp_path / "run" / "provenance.json").read_text())
    monkeypatch.setattr("kpg_fast.runs.provenance.commit", lambda: "another")
    resume(tmp_path / "run")
    resume(tmp_path / "run")  # does nothing, so it is not kept
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["commit"] == first["commit"] != "another"
    assert [(part["after_update"], part["commit"]) for part in result["resumed"]] == [(3, "another")]


def test_best_is_the_best_evaluation_and_the_first_of_equals(
    tmp_path: Path, fake_trainer: type[FakeTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {1: (0.1, 5.0), 2: (0.8, 1.0), 3: (0.8, 2.0), 4: (0.8, 2.0), 5: (0.2, 9.0), 6: (0.0, 0.0)}

    def scored(self: FakeTrainer, episodes: int, watch: object = None) -> dict[str, float]:
        win, score = scores[self.updates]
        return {"eval/win_rate": win, "eval/return_mean": score}

    monkeypatch.setattr(fake_trainer, "evaluate", scored)
    with monkeypatch.context() as patch:
        stop_at(patch, fake_trainer, 4, signal.SIGTERM)
        train(small(tmp_path / "run", eval_every=32))
    result = resume(tmp_path / "run")  # the best so far is remembered
    assert checkpoint.load(result.run_dir / "checkpoints" / "best")[1]["counters"] == {"updates": 3}
    assert checkpoint.load(result.run_dir / "checkpoints" / "last")[1]["counters"] == {"updates": 6}


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C as Python handles it: what was started in a shell's background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_second_interrupt_is_not_caught() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_load_and_evaluate_take_a_run_or_a_checkpoint(tmp_path: Path, fake_trainer: type[FakeTrainer]) -> None:
    result = train(small(tmp_path / "run", eval_every=32))
    trainer = load(result.run_dir)
    assert trainer.updates == 6
    assert torch.equal(load(result.run_dir / "checkpoints" / "last").tensors()["weight"], trainer.tensors()["weight"])
    assert evaluate(result.run_dir, 2)["eval/episodes"] == 2
    with pytest.raises(UsageError, match="episodes = 0"):
        evaluate(result.run_dir, 0)
    with pytest.raises(UsageError, match="no checkpoint at"):
        load(tmp_path)


def test_one_writer_at_a_time(tmp_path: Path, fake_trainer: type[FakeTrainer], monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []

    def resume_meanwhile(self: FakeTrainer, episodes: int, watch: object = None) -> dict[str, float]:
        with pytest.raises(UsageError, match="another process is writing"):
            resume(tmp_path / "run")
        refused.append(True)
        return {"eval/win_rate": 0.0, "eval/return_mean": 0.0}

    monkeypatch.setattr(fake_trainer, "evaluate", resume_meanwhile)
    train(small(tmp_path / "run"))
    assert refused


def test_public_names() -> None:
    assert set(kpg_fast.__all__) >= {"Config", "train", "evaluate", "load", "resume"}
    for name in ("train", "evaluate", "load", "resume"):
        assert callable(getattr(kpg_fast, name))
        assert getattr(kpg_fast, name).__doc__


@pytest.mark.parametrize(
    "values",
    [
        {"env": "smax/3m"},
        {"env": "mamujoco/Ant-4x2", "preset": "mamujoco", "env_options": ("max_episode_steps=11",)},
    ],
    ids=["discrete", "continuous"],
)
def test_real_trainer_resumes_exactly(
    values: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kpg_fast.k_mappo_trainer import KMappoTrainer

    values = {"levels": 2, "num_epochs": 2, "eval_every": 64, "eval_every_episodes": 2} | values
    whole = train(small(tmp_path / "whole", **values))
    with monkeypatch.context() as patch:
        stop_at(patch, KMappoTrainer, 3, signal.SIGTERM)
        stopped = train(small(tmp_path / "stopped", **values))
    assert stopped.updates == 3
    assert_same_run(whole, resume(stopped.run_dir))


def test_film_of_a_real_run(tmp_path: Path) -> None:
    whole = train(small(tmp_path / "whole", env="smax/3m"))
    film = imageio.v3.imread(record(whole.run_dir, tmp_path / "episode.gif"))
    assert len(film) > 1
    assert (film[0] != film[-1]).any()


def test_a_run_from_a_card_is_evaluated_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = train(small(tmp_path / "run", updates=1, env="smax/3m"))
    file = result.run_dir / "config.json"
    file.write_text(file.read_text().replace('"cpu"', '"cuda"').replace('"fp32"', '"tf32"'))
    evaluation = {n: v for n, v in result.metrics.items() if n.startswith("eval/")}
    for there_is_one in (True, False):  # a card that is there is left to the run
        monkeypatch.setattr("torch.cuda.is_available", lambda answer=there_is_one: answer)
        assert evaluate(result.run_dir, 3) == evaluation
    assert load(result.run_dir).config.device == "cpu"
    with pytest.raises(UsageError, match="device = 'cuda': torch"):
        train(small(tmp_path / "other", env="smax/3m", device="cuda"))


def test_loaded_run_acts(tmp_path: Path) -> None:
    """The example of ``load``: actions of a trained policy for observations from anywhere."""
    shape = {"env": "toy/climbing", "recurrent": False, "hidden": 8}
    result = train(small(tmp_path / "run", updates=2, **shape))
    trainer = load(result.run_dir)
    agents, actions = 2, 3
    obs, avail = torch.ones(5, agents, 1), torch.ones(5, agents, actions, dtype=torch.bool)
    avail[..., 0] = False
    action, log_prob = trainer.player(5).act(obs, avail, torch.ones(5, dtype=torch.bool), 0, greedy=True)
    assert action.shape == log_prob.shape == (5, agents)
    assert (action > 0).all()
    assert (action == action[0]).all()
    with pytest.raises(UsageError, match="toy environments cannot be drawn"):
        record(result.run_dir, tmp_path / "episode.gif")
    assert not (tmp_path / "episode.gif").exists()
