"""Whole runs of K-MADDPG and K-FACMAC on small games: they learn, resume exactly, and refuse what cannot be."""

import pytest
import torch

from kpg_fast.config import Config
from kpg_fast.errors import UsageError
from kpg_fast.off_policy.trainer import OffPolicyTrainer
from kpg_fast.trainer import make_trainer

TINY = {"num_envs": 2, "num_steps": 10, "batch_size": 8, "buffer_size": 64, "warmup": 8, "start_steps": 20, "hidden": 8}
MOVING = {"algorithm": "k-facmac", "env": "toy/meetup"}
CHOOSING = {
    "algorithm": "k-facmac", "env": "toy/climbing", "preset": "smac", "recurrent": True, "epsilon_steps": 100,
}  # fmt: skip


def config(**values) -> Config:
    return Config.make(**(TINY | {"total_steps": 2000, "levels": 2} | values))


def run(trainer: OffPolicyTrainer, updates: int) -> dict[str, float]:
    for _ in range(updates):
        metrics = trainer.update()
    return metrics


def state(trainer: OffPolicyTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.tensors().items()}


@pytest.mark.parametrize(
    "values",
    [
        MOVING,
        CHOOSING,
        MOVING | {"algorithm": "k-maddpg"},
        MOVING | {"in_file": True},
        MOVING | {"state_norm": True, "rmsprop_correction": True, "anneal_lr": True},
    ],
)
def test_stopped_and_resumed_is_the_same_run(values, tmp_path):
    values = dict(values)
    options = {"replay_dir": str(tmp_path)} if values.pop("in_file", False) else {}
    whole = make_trainer(config(**values))
    run(whole, 6)
    part = make_trainer(config(**values, **options))
    run(part, 3)
    saved, counters = state(part), part.counters()
    if not options:
        run(part, 2)  # goes on without touching what was saved
    part.close()
    resumed = make_trainer(config(**values, **options))
    resumed.restore(saved, counters)
    run(resumed, 3)
    expected, got = state(whole), state(resumed)
    if options:
        expected.pop("replay/rows")
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=0, atol=0, equal_nan=True, msg=name)
    assert resumed.env_steps == whole.env_steps == 120
    resumed.close()


@pytest.mark.parametrize("values", [MOVING, CHOOSING])
def test_evaluation_does_not_touch_training(values):
    plain, watched = make_trainer(config(**values)), make_trainer(config(**values))
    run(plain, 4)
    run(watched, 2)
    seen = []
    metrics = watched.evaluate(5, lambda env: seen.append(env.spec.num_envs))
    assert seen == [5, 5]  # before the one step of every episode, and at the end
    assert metrics["eval/length_mean"] == 1
    run(watched, 2)
    for name, value in state(plain).items():
        assert torch.equal(watched.tensors()[name], value), name


@pytest.mark.parametrize("algorithm", ["k-facmac", "k-maddpg"])
@pytest.mark.parametrize("levels", [1, 2])
def test_agents_learn_to_meet(algorithm, levels):
    values = {"num_steps": 50, "batch_size": 32, "buffer_size": 2000, "hidden": 32, "tau": 0.05, "act_noise": 0.3}
    values |= {"algorithm": algorithm, "levels": levels, "start_steps": 100, "shared_actor": False}
    trainer = make_trainer(config(**MOVING | values))
    before = trainer.evaluate(1)["eval/return_mean"]
    lines = [run(trainer, 1) for _ in range(3)]
    assert lines[-1]["learned"] == 100
    assert trainer.evaluate(1)["eval/return_mean"] > max(-0.4, before)
    if levels == 2:  # where they have met, it is one small number over another
        assert 0 < next(line["contraction_ratio"] for line in lines if "contraction_ratio" in line) < 1


def test_recurrent_agents_learn_to_choose():
    """Stag hunt by K-FACMAC from episodes: together, the stag."""
    values = {"num_steps": 40, "batch_size": 16, "buffer_size": 500, "hidden": 16, "target_interval": 20, "levels": 2}
    trainer = make_trainer(config(**CHOOSING | values | {"env": "toy/stag_hunt", "lr": 0.01, "critic_lr": 0.01}))
    metrics = run(trainer, 3)
    assert metrics["episodes"] == 80
    assert trainer.evaluate(2)["eval/win_rate"] == 1


def test_updates_follow_the_stored_samples():
    trainer = make_trainer(config(**MOVING, updates_per_sample=0.25))
    # 20 steps are stored an update, and learning begins when 8 of them are there
    assert run(trainer, 1)["learned"] == 3
    assert run(trainer, 1)["learned"] == 5
    assert trainer.facts["updates_per_sample"] == "0.25"


def test_annealed_rates_fall_to_the_last_line():
    trainer = make_trainer(config(**MOVING, total_steps=80, anneal_lr=True, lr=0.4, critic_lr=0.2))
    assert trainer.num_updates == 4
    rates = []
    for _ in range(4):
        assert trainer.update()["lr"] == trainer.algorithm.actor.learner.lr
        rates.append([learner.lr for learner in trainer.algorithm.learners])
    assert rates == [pytest.approx([0.4 * left, 0.2 * left]) for left in (1, 0.75, 0.5, 0.25)]


def test_levels_do_not_drift():
    run(make_trainer(config(**MOVING, debug_drift=True, levels=3)), 2)


def test_presets_follow_the_environment():
    assert config(**MOVING).preset == "mamujoco"
    smax = Config.make("k-facmac", "smax/3m")
    assert (smax.preset, smax.off_policy.recurrent, smax.eval_every) == ("smax", True, 100_000)
    assert Config.make("k-facmac", "smac/3m").preset == "smac"
    assert Config.make("k-maddpg", "mamujoco/HalfCheetah-2x3", total_steps=5000).total_steps == 5000
    assert not Config.make("k-maddpg", "mamujoco/HalfCheetah-2x3").off_policy.shared_critic
    assert Config.from_dict(smax.to_dict()) == smax


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0"),
        ({"buffer_size": 4}, "must hold warmup"),
        ({"tau": 1.5}, "tau = 1.5"),
        ({"lr": 0.0}, "above 0"),
        ({"mixer": "monotonous"}, "did you mean monotonic"),
        ({"last_action": True}, "recurrent"),
        ({"preset": "jaxmarl"}, "unknown preset"),
        ({"clip_eps": 0.2}, "unknown setting"),
        ({"precision": "mixed-lookahead"}, "fp32 or bf16 only"),
        ({"precision": "bf16", "recurrent": True}, "recurrent agents runs in fp32 only"),
        ({"device": "cuda"}, "on the cpu"),
        ({"algorithm": "k-facmc"}, "did you mean k-facmac"),
        ({"env": "toy/meetpu"}, "did you mean meetup"),
    ],
)
def test_bad_input_is_refused(values, message):
    with pytest.raises(UsageError, match=message):
        make_trainer(config(**MOVING | values))


def test_a_checkpoint_of_another_shape_is_refused():
    trainer, other = make_trainer(config(**MOVING)), make_trainer(config(**MOVING, hidden=16))
    run(other, 1)
    with pytest.raises(UsageError, match="has shape"):
        trainer.restore(other.tensors(), other.counters())
    tensors = state(trainer)
    tensors.pop("critic/theta")
    with pytest.raises(UsageError, match="critic/theta is missing"):
        trainer.restore(tensors, trainer.counters())
