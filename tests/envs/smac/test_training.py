"""Training end to end on the stand-in: protocol and learning are real, the combat is not StarCraft II's.

No number here is a result on SMAC.
"""

from contextlib import closing

import numpy as np
import pytest
import torch

pytest.importorskip("s2clientprotocol.sc2api_pb2", reason="pip install 'kpg_fast[smac]'")
pytest.importorskip("websocket", reason="pip install 'kpg_fast[smac]'")

from starcraft import clear_faults, launches, set_faults

from kpg_fast import Config
from kpg_fast.envs.smac import make_env
from kpg_fast.errors import EnvironmentFailure
from kpg_fast.k_mappo_trainer import KMappoTrainer
from kpg_fast.off_policy.trainer import OffPolicyTrainer
from kpg_fast.place import CPU, Place
from kpg_fast.rollout import play
from kpg_fast.runs import metrics
from kpg_fast.runs.run import resume, train

pytestmark = pytest.mark.usefixtures("no_plot")
NATIVE = ("client=native", "stagger=0")
SMALL = {"num_envs": 3, "num_steps": 20, "num_epochs": 2, "hidden": 8, "levels": 2}
FACMAC = {"num_envs": 2, "num_steps": 120, "hidden": 8, "batch_size": 4, "warmup": 4, "levels": 2, "buffer_size": 20}


def config(algorithm="k-mappo", env="smac/3m", options=(), **values) -> Config:
    small = SMALL if algorithm == "k-mappo" else FACMAC
    return Config.make(algorithm, env, env_options=(*NATIVE, *options), total_steps=10**6, **(small | values))


class Random:
    """Every available action is as likely."""

    def act(self, obs, avail_actions, reset, counter, greedy=False):
        e, n, a = avail_actions.shape
        drawn = torch.multinomial(avail_actions.float().view(-1, a), 1).view(e, n).int()
        return drawn, torch.zeros(e, n)

    def for_env(self, action):
        return action


@pytest.mark.slow
def test_k_mappo_doubles_the_random_return_though_a_game_is_killed_and_one_hangs(game, tmp_path):
    torch.manual_seed(0)
    with closing(make_env("3m", 8, seed=1, client="native", stagger=0.0)) as env:
        at_random = play(env, Random(), 6)["return_mean"]
    crash, hang = ({"kind": kind, "at": at, "times": 1} for kind, at in (("crash", 150), ("hang", 400)))
    set_faults(game, crash, hang)
    values = {"lr": 0.002, "num_steps": 100, "num_epochs": 10, "num_minibatches": 2, "levels": 2}
    run = train(
        Config.make(
            "k-mappo",
            "smac/3m",
            env_options=(*NATIVE, "timeout=1"),
            total_steps=800 * 14,
            eval_every=0,
            eval_episodes=8,
            run_dir=str(tmp_path / "run"),
            **values,
        )
    )
    assert run.finished
    lines = metrics.read(run.run_dir / "metrics.jsonl")
    assert np.mean([line["return_mean"] for line in lines[-3:]]) > 2 * at_random > 2
    assert (lines[-1]["smac/crashes"], lines[-1]["smac/hangs"]) == (1, 1)
    assert lines[-1]["smac/dropped_episodes"] == 2
    assert run.metrics["eval/episodes"] == 8


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.tensors().items() if name.startswith(("actor", "critic"))}


def watch_losses(trainer) -> list[tuple[int, int]]:
    """Step and environment of every void step from now on."""
    step, taken, lost = trainer.env.step, [], []

    def watching(action, out):
        step(action, out)
        lost.extend((len(taken), int(row)) for row in np.flatnonzero(~out.valid))
        taken.append(1)

    trainer.env.step = watching
    return lost


def lose(trainer, at: int, row: int) -> None:
    """Void the episode of environment ``row`` before its step ``at``."""
    step, taken = trainer.env.step, []

    def dropping(action, out):
        if len(taken) == at:
            trainer.env.drop_episode(row)
        taken.append(1)
        step(action, out)

    trainer.env.step = dropping


def test_a_run_with_a_crash_equals_bit_for_bit_one_with_that_episode_masked(game):
    masked = config(env="smac/8m", options=("sync=true",))
    # no episode of 8m is over by then: the loss is in the middle of the first
    set_faults(game, {"kind": "crash", "at": 15, "times": 1})
    with closing(KMappoTrainer(masked)) as trainer:
        lost = watch_losses(trainer)
        void = [trainer.update() and int((~trainer.rollout.valid).sum()) for _ in range(3)]
        crashed = weights(trainer)
        assert trainer.env.metrics()["smac/crashes"] == 1
    assert len(lost) == 1
    assert void == [lost[0][0] + 1, 0, 0], "the steps before the crash are void, too"
    assert lost[0][0] > 10
    clear_faults(game)
    for garbage in (False, True):
        with closing(KMappoTrainer(masked)) as trainer:
            lose(trainer, *lost[0])
            if garbage:
                fill_void_steps(trainer)
            for _ in range(3):
                trainer.update()
            counts = trainer.env.metrics()
            assert (counts["smac/crashes"], counts["smac/dropped_episodes"]) == (0, 1)
            for name, value in weights(trainer).items():
                if "hidden" not in name:
                    assert torch.equal(value, crashed[name]), (name, garbage)


def fill_void_steps(trainer) -> None:
    """Write nonsense where nothing may be read."""
    collect = trainer.rollout.collect

    def collecting(*arguments, **named):
        spent = collect(*arguments, **named)
        r = trainer.rollout
        for name in ("obs", "state", "reward", "log_prob", "last_state"):
            memory = getattr(r, name)
            memory[: len(r.valid)][~r.valid] = 7.0
        r.action[~r.valid] = 1
        return spent

    trainer.rollout.collect = collecting


def test_whoever_is_ready_goes_on_and_the_same_data_comes_out(game):
    set_faults(game, {"kind": "slow", "seconds": [0.0, 0.004]})
    found = []
    for options in (("sync=true",), ()):
        with closing(KMappoTrainer(config(options=options), torch.float64)) as trainer:
            assert trainer.env.uneven == (options == ())
            for _ in range(2):
                trainer.update()
            memory = vars(trainer.rollout).items()
            found.append({name: value.clone() for name, value in memory if isinstance(value, torch.Tensor)})
    for name, value in found[0].items():
        if value.is_floating_point():
            torch.testing.assert_close(value, found[1][name], rtol=0, atol=1e-9, msg=name)
        else:
            assert torch.equal(value, found[1][name]), name


def test_games_beside_a_learner_elsewhere_give_the_same_run(game):
    found = []
    for place in (CPU, Place(torch.device("cpu"), hosted=True)):
        with closing(KMappoTrainer(config(), place=place)) as trainer:
            lines = [trainer.update() for _ in range(2)]
            found.append((weights(trainer), [line.get("return_mean") for line in lines]))
    assert repr(found[0][1]) == repr(found[1][1])
    for name, value in found[0][0].items():
        torch.testing.assert_close(value, found[1][0][name], rtol=0, atol=1e-6, msg=name)


def test_games_beside_an_off_policy_learner_elsewhere_give_the_same_run(game):
    found = []
    for place in (CPU, Place(torch.device("cpu"), hosted=True)):
        with closing(OffPolicyTrainer(config("k-facmac", options=("sync=true",)), torch.float64, place)) as trainer:
            lines = [trainer.update() for _ in range(2)]
            found.append(weights(trainer))
            assert lines[-1]["learned"] > 0
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=0, atol=1e-9, msg=name)
    with closing(OffPolicyTrainer(config("k-facmac"), place=Place(torch.device("cpu"), hosted=True))) as trainer:
        assert trainer.env.uneven  # whoever is ready goes on
        assert [trainer.update()["learned"] for _ in range(2)][-1] > 0


def test_recurrent_k_facmac_learns_from_whole_episodes_without_the_lost_one(game):
    set_faults(game, {"kind": "crash", "at": 100, "times": 1})
    learned, lost = [], []
    for _ in range(2):
        with closing(OffPolicyTrainer(config("k-facmac", options=("sync=true",)))) as trainer:
            if lost:
                lose(trainer, *lost[0])
            else:
                lost = watch_losses(trainer)
            before = weights(trainer)
            lines = [trainer.update() for _ in range(2)]
            after = weights(trainer)
        assert sum(line["episodes"] for line in lines) == lines[-1]["replay"] == trainer.experience.ring.written > 4
        assert lines[-1]["smac/dropped_episodes"] == len(lost) == 1
        assert lines[-1]["learned"] > 0
        assert not torch.equal(before["actor/theta"], after["actor/theta"])
        learned.append(after)
        clear_faults(game)
    for name, value in learned[0].items():
        assert torch.isfinite(value).all(), name
        assert torch.equal(value, learned[1][name]), name


def test_off_policy_nobody_waits_for_the_slowest_either(game):
    set_faults(game, {"kind": "slow", "seconds": [0.02, 0.03], "launch": 0})
    with closing(OffPolicyTrainer(config("k-facmac", num_envs=3, num_steps=150))) as trainer:
        record, taken = trainer.experience.record, np.zeros(3, int)

        def recording(action, out, envs):
            taken[envs] += 1
            return record(action, out, envs)

        trainer.experience.record = recording
        line = trainer.update()
        experience = trainer.experience
        rows = experience.ring.rows[: experience.ring.written]
        steps = experience.columns.views(rows[:, :-1].view(len(rows), -1, experience.columns.width))
    assert taken.sum() == 450
    assert taken.max() > 2 * taken.min(), "the slow game holds nobody up"
    assert len(rows) == line["episodes"] > 5
    assert float(steps["reward"].sum()) == pytest.approx(line["return_mean"] * line["episodes"], rel=1e-5)
    for row, length in enumerate(rows[:, -1].long()):
        avail, action = steps["avail"][row, :length], steps["action"][row, :length].long()
        assert (avail.gather(-1, action[..., None]) == 1).all(), "what was done could be done then"


def test_a_game_that_never_plays_stops_the_run_after_a_checkpoint_with_its_log(game, tmp_path):
    run_dir = tmp_path / "run"
    small = config(options=("sync=true", "max_failures=2"), run_dir=str(run_dir), eval_episodes=3, eval_every=0)
    small = Config.from_dict(small.to_dict() | {"total_steps": 60 * 4})
    # the first games die after a whole rollout, and theirs successors at once
    later = [{"kind": "crash", "at": 2, "launch": launch} for launch in range(3, 10)]
    set_faults(game, *({"kind": "crash", "at": 50, "launch": launch} for launch in range(3)), *later)
    with pytest.raises(EnvironmentFailure) as failure:
        train(small)
    assert "access violation" in str(failure.value)
    assert "the state is saved" in str(failure.value)
    done = metrics.read(run_dir / "metrics.jsonl")[-1]["update"]
    clear_faults(game)
    result = resume(run_dir)
    assert result.finished
    assert result.updates == 4 > done
    assert metrics.read(run_dir / "metrics.jsonl")[-1]["update"] == 4


def test_evaluation_keeps_its_games_and_replaces_a_lost_episode(game):
    set_faults(game, {"kind": "crash", "at": 60, "launch": 4})
    with closing(KMappoTrainer(config())) as trainer:
        trainer.update()
        before = trainer.env.state_dict()
        for _ in range(2):
            result = trainer.evaluate(6)
            assert result["eval/episodes"] == 6
        assert result["eval/smac/crashes"] == result["eval/smac/dropped_episodes"] == 1
        assert launches(game) == 3 + 3 + 1
        np.testing.assert_array_equal(trainer.env.state_dict()["launches"], before["launches"])
        trainer.update()
    assert trainer.facts["game_version"] == "stand-in 4.10.0"
    assert (trainer.facts["map"], trainer.facts["client"], trainer.facts["difficulty"]) == ("3m", "native", "7")


def test_the_preset_is_the_fields():
    plain, hard, generated = (Config.make("k-mappo", f"smac/{name}") for name in ("2s3z", "5m_vs_6m", "10gen_zerg_5v5"))
    assert plain.preset == "smac"
    assert (plain.eval_every, plain.eval_every_episodes, plain.eval_episodes) == (10_000, 32, 32)
    s = plain.settings
    assert (s.value_norm, s.death_mask, s.chunk_length, s.num_envs, s.num_steps) == (True, True, 10, 8, 400)
    assert [c.settings.num_epochs for c in (plain, hard, generated)] == [15, 10, 5]
    assert hard.settings.clip_eps == 0.05
    assert Config.make("k-mappo", "smac/corridor", num_epochs=7).settings.num_epochs == 7
    assert Config.make("k-mappo", "smax/2s3z").preset == "jaxmarl"
