import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from kpg_fast.config import Config
from kpg_fast.errors import UsageError
from kpg_fast.k_mappo_metrics import _quantiles
from kpg_fast.k_mappo_trainer import KMappoTrainer
from kpg_fast.rollout import map_tensors
from kpg_fast.store.drift import DriftError
from tests.naive_mappo import NaiveMappo

SMALL = {"num_envs": 4, "num_steps": 8, "num_minibatches": 2, "num_epochs": 1, "hidden": 6, "total_steps": 32 * 1000}


def trainer_for(env: str = "smax/3m", dtype: torch.dtype = torch.float64, **values) -> KMappoTrainer:
    return KMappoTrainer(Config.make("k-mappo", env, **(SMALL | values)), dtype)


def follow(trainer: KMappoTrainer, updates: int) -> NaiveMappo:
    """Train, and let the naive implementation learn from the same rollouts and minibatches."""
    s = trainer.config.settings
    naive = NaiveMappo(trainer, trainer.config.levels, s.level1_others)
    n = trainer.actor.num_agents

    def per_env(hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden.clone()
        if hidden.shape[0] == 1:
            return hidden[0].unflatten(0, (-1, n))
        return hidden.transpose(0, 1)

    for _ in range(updates):
        hidden, critic_hidden = per_env(trainer.actor.hidden), per_env(trainer.critic.hidden)
        shuffle = copy.deepcopy(trainer.generators[0].get_state())
        done = trainer.updates
        trainer.update()
        generator = torch.Generator()
        generator.set_state(shuffle)
        minibatches = [
            part
            for _ in range(s.num_epochs)
            for part in torch.randperm(s.num_samples, generator=generator).chunk(s.num_minibatches)
        ]
        data = map_tensors(trainer.rollout, lambda x: x.double() if x.is_floating_point() else x)
        naive.update(data, hidden, critic_hidden, minibatches, s.lr * (1 - done / trainer.num_updates))
    return naive


def differences(trainer: KMappoTrainer, naive: NaiveMappo) -> float:
    worst = 0.0
    pairs = [(trainer.actor.learner.theta, g, net) for g, net in enumerate(naive.actors)]
    for theta, g, net in [*pairs, (trainer.critic.learner.theta, 0, naive.critic)]:
        for name, value in theta.items():
            other = getattr(net, name.replace(".", "_"))
            worst = max(worst, float((value[g] - other.detach()).abs().max()))
    return worst


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_one_level_is_plain_mappo_over_20_updates(shared):
    trainer = trainer_for(levels=1, shared_actor=shared, preset="kpg")
    naive = follow(trainer, 20)
    assert trainer.actor.learner.steps == 40
    assert differences(trainer, naive) < 1e-12


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize("levels", [2, 3, 4])
def test_levels_equal_a_naive_loop(levels, shared):
    trainer = trainer_for(levels=levels, shared_actor=shared, preset="kpg")
    assert differences(trainer, follow(trainer, 3)) < 1e-12


@pytest.mark.parametrize(
    "values",
    [
        {"clip_mode": "own"},
        {"clip_mode": "double", "clip_eps_others": 0.05},
        {"level1_others": "current"},
        {"optimizer": "rmsprop"},
        {"optimizer": "sgd", "lr": 0.5},
        {"recurrent": False},
        {"recurrent": False, "shared_actor": False},
        {"agent_id": True, "ent_coef": 0.01},
        {"preset": "jaxmarl"},
        {"env_options": ("flavour=jaxmarl",)},
        {"env_options": ("max_steps=3",), "gamma": 0.9},
        {"chunk_length": 2, "num_minibatches": 8},
        {"chunk_length": 4, "shared_actor": False, "agent_id": True},
        {"chunk_length": 2, "recurrent": False},
        {"value_norm": True, "num_epochs": 3},
        {"death_mask": True, "env_options": ("max_steps=40",), "num_steps": 40, "total_steps": 160_000},
        {"preset": "smac", "num_epochs": 3, "chunk_length": 4, "anneal_lr": True},
    ],
    ids=str,
)
def test_options_equal_a_naive_loop(values):
    trainer = trainer_for(**({"levels": 2, "preset": "kpg", "lr": 0.02} | values))
    assert differences(trainer, follow(trainer, 3)) < 1e-11  # RMSProp divides rounding by the root of small squares


CONTINUOUS = {"input_norm": True, "initial_std": 0.4, "ent_coef": 0.01, "lr": 0.02}


@pytest.mark.parametrize(
    "env",
    ["mamujoco/HalfCheetah-2x3", "mamujoco/Ant-2x4d", "mamujoco/Humanoid-9|8", "smax/2s3z", "toy/meetup"],
    ids=str,
)
@pytest.mark.parametrize(
    "values",
    [
        {"levels": 1},
        {"levels": 3},
        {"levels": 4, "shared_actor": False, "recurrent": True},
        {"agent_id": True, "value_norm": True, "num_epochs": 2, "chunk_length": 4},
        {"clip_mode": "double", "clip_eps_others": 0.05, "level1_others": "current"},
        {"clip_mode": "own", "optimizer": "rmsprop", "shared_actor": False},
        {"preset": "jaxmarl", "recurrent": True, "num_steps": 40, "num_envs": 2, "total_steps": 80_000},
    ],
    ids=str,
)
def test_continuous_actions_equal_a_naive_loop(env, values):
    """Agents with as many actuators, with fewer than others (padded), and such that die."""
    options = ("action_type=continuous",) if env.startswith("smax") else ()
    values = {"levels": 2, "preset": "kpg", "recurrent": False, "env_options": options} | CONTINUOUS | values
    trainer = trainer_for(env, **values)
    assert differences(trainer, follow(trainer, 3)) < 1e-10  # dozens of factors in a ratio; RMSProp as above


def test_what_is_done_stays_within_the_bounds():
    """The policy's own units are [-1, 1] whatever the actuator's bounds; padding gets nothing."""
    trainer = trainer_for("mamujoco/Humanoid-9|8", initial_std=2.0, preset="kpg", recurrent=False)
    seen, step = [], trainer.env.step
    trainer.env.step = lambda action, out: (seen.append(action.copy()), step(action, out))
    trainer.update()
    done, chosen, spec = torch.from_numpy(np.stack(seen)), trainer.rollout.action, trainer.env.spec
    low, high = torch.from_numpy(spec.action_low), torch.from_numpy(spec.action_high)
    assert (chosen.abs() > 1).any()
    assert ((done >= low) & (done <= high)).all()
    assert (done == high).any()
    assert (done[..., high == low] == 0).all()
    within = chosen.abs() < 0.99
    torch.testing.assert_close(done[within], (low + (chosen + 1) / 2 * (high - low))[within])


def test_greedy_actions_are_the_means():
    trainer = trainer_for("mamujoco/HalfCheetah-2x3", dtype=torch.float32, preset="kpg", recurrent=False)
    for value in trainer.actor.theta.values():
        value.zero_()
    trainer.actor.theta["out.b"].copy_(torch.tensor([[0.5, -0.25, 7.0]]))
    player = trainer.player(3)
    obs, avail = torch.zeros(3, 2, trainer.env.spec.obs_size), torch.ones(3, 2, 3, dtype=torch.bool)
    action, log_prob = player.act(obs, avail, torch.ones(3, dtype=torch.bool), 0, greedy=True)
    assert action[2, 1].tolist() == [0.5, -0.25, 7]
    assert player.for_env(action)[2, 1].tolist() == [0.5, -0.25, 1]
    torch.testing.assert_close(log_prob, torch.full((3, 2), -1.5 * math.log(2 * math.pi)))  # deviations of e^0


@pytest.mark.parametrize("levels", [1, 2])
def test_agents_learn_to_meet(levels):
    values = {"num_envs": 64, "hidden": 16, "lr": 0.01, "total_steps": 64 * 8 * 40, "max_grad_norm": 1.0}
    own = {"levels": levels, "recurrent": False, "shared_actor": False, "initial_std": 0.5}
    trainer = trainer_for("toy/meetup", dtype=torch.float32, **values, **own)
    trainer.actor.theta["out.b"].copy_(torch.tensor([[0.8, -0.8], [-0.8, 0.8]])[: trainer.actor.num_agents])
    before = trainer.evaluate(16)["eval/return_mean"]
    for _ in range(40):
        metrics = trainer.update()
    after = trainer.evaluate(16)["eval/return_mean"]
    assert after > before / 20, (before, after)
    assert metrics["return_mean"] > before / 5


def test_levels_make_a_difference():
    one, two = trainer_for(levels=1), trainer_for(levels=2)
    one.update()
    two.update()
    gap = (one.actor.learner.store.slot("theta") - two.actor.learner.store.slot("theta")).abs().max()
    assert gap > 1e-6


@pytest.mark.parametrize("option", [{"clip_mode": "double", "clip_eps_others": 0.01}, {"debug_drift": True}], ids=str)
def test_no_level_option_changes_a_bit_of_one_level(option):
    plain, other = trainer_for(levels=1, dtype=torch.float32), trainer_for(levels=1, dtype=torch.float32, **option)
    for _ in range(3):
        plain.update()
        other.update()
    for slot, value in plain.actor.learner.tensors().items():
        assert torch.equal(value, other.actor.learner.tensors()[slot]), slot


def test_drift_check_catches_levels_that_accumulate():
    trainer = trainer_for(levels=3, dtype=torch.float32, debug_drift=True)
    learner = trainer.actor.learner
    trainer.update()
    step = learner.step

    def accumulating(grads, k):
        slot = step(grads, k)
        learner.store.copy(slot, "theta")  # the planted bug: the next level starts from this one
        return slot

    learner.step = accumulating
    with pytest.raises(DriftError, match="level 2"):
        trainer.update()


def test_theta_and_optimiser_are_untouched_while_levels_run():
    trainer = trainer_for(levels=4, dtype=torch.float32)
    learner = trainer.actor.learner
    seen = []
    step = learner.step

    def watched(grads, k):
        slot = step(grads, k)
        seen.append((k, learner.steps, {n: v.clone() for n, v in learner.tensors().items()}))
        return slot

    learner.step = watched
    trainer.update()
    assert [k for k, _, _ in seen] == [1, 2, 3, 4] * 2
    for start in range(0, len(seen), 4):
        for _, steps, tensors in seen[start : start + 4]:
            assert steps == seen[start][1]
            assert all(torch.equal(tensors[n], seen[start][2][n]) for n in tensors)


def test_float32_agrees_with_float64_after_one_update():
    values = {"levels": 2, "optimizer": "sgd", "lr": 0.5}  # Adam would turn rounding into whole steps
    single, double = trainer_for(dtype=torch.float32, **values), trainer_for(**values)
    for name, value in double.actor.learner.theta.items():
        value.copy_(single.actor.learner.theta[name])
    for name, value in double.critic.learner.theta.items():
        value.copy_(single.critic.learner.theta[name])
    double.generators[0].set_state(single.generators[0].get_state())
    assert single.update().keys() == double.update().keys()
    assert torch.equal(single.rollout.action, double.rollout.action)
    for name, value in double.actor.learner.theta.items():
        torch.testing.assert_close(single.actor.learner.theta[name].double(), value, atol=2e-6, rtol=1e-4)


def test_metrics_tell_what_a_level_did():
    metrics = trainer_for(levels=3, dtype=torch.float32).update()
    for name in ("delta/1", "delta/3", "contraction_ratio", "m/q05", "m/q95", "clip_fraction", "approx_kl", "entropy"):
        assert name in metrics, name
    for name in ("time/env", "time/policy", "time/level_1", "time/level_3", "time/critic", "grad_norm"):
        assert metrics[name] >= 0, name
    assert metrics["delta/1"] > metrics["delta/2"] > 0


def test_policies_in_tf32_play_in_float32_on_the_cpu():
    trainer = trainer_for(dtype=torch.float32)
    expected = trainer.evaluate(4)
    trainer.actor.network = replace(trainer.actor.network, precision="tf32")
    assert trainer.evaluate(4) == expected
    with pytest.raises(UsageError, match="tf32 is one of GPUs"):
        trainer.update()


def test_evaluation_leaves_the_run_alone():
    one, two = trainer_for(dtype=torch.float32), trainer_for(dtype=torch.float32)
    result = one.evaluate(10)
    assert result["eval/episodes"] >= 10
    assert 0 <= result["eval/win_rate"] <= 1
    one.update()
    two.update()
    assert torch.equal(one.actor.learner.store.slot("theta"), two.actor.learner.store.slot("theta"))


def test_quantiles_of_m_are_of_the_living():
    """An agent that is dead has the others' ratios beside it, which weigh nothing."""
    x = torch.randn(3, 101, generator=torch.Generator().manual_seed(0))
    x[1, ::3], x[2] = math.nan, math.nan
    expected = torch.nanquantile(x, torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]), 1).T
    torch.testing.assert_close(_quantiles(x), expected, equal_nan=True)
    trainer = trainer_for("smax/2s3z", dtype=torch.float32, levels=2, num_steps=60, num_envs=4, total_steps=240 * 9)
    seen, update = [], trainer.algorithm.update

    def watched(batch):
        measured = update(batch)
        seen.append((batch.data.alive[:, :-1], measured["log_m"]))
        return measured

    trainer.algorithm.update = watched
    trainer.update()
    for alive, log_m in seen:
        assert not alive.all()
        assert torch.equal(log_m.isnan(), ~alive)
