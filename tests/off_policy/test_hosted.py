"""Off-policy training in a card's way, with the CPU in the card's place: the run that the CPU does in its own way."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch

from kpg_fast.config import Config
from kpg_fast.envs import make
from kpg_fast.errors import UsageError
from kpg_fast.off_policy.learning import OnDevice
from kpg_fast.off_policy.replay_buffer import Ring
from kpg_fast.off_policy.trainer import OffPolicyTrainer
from kpg_fast.off_policy.update import OffPolicyAlgorithm
from kpg_fast.place import CPU, Place
from kpg_fast.trainer import make_trainer
from tests.off_policy.test_update import Case
from tests.test_queued import CARD, Queued

TINY = {
    "num_envs": 2, "num_steps": 10, "batch_size": 8, "buffer_size": 32, "warmup": 8, "start_steps": 20, "hidden": 8,
    "total_steps": 2000, "levels": 2,
}  # fmt: skip
HOSTED = Place(torch.device("cpu"), hosted=True)


def trainer_for(place: Place, algorithm="k-facmac", env="toy/meetup", **values) -> OffPolicyTrainer:
    return OffPolicyTrainer(Config.make(algorithm, env, **(TINY | values)), place=place)


def after(trainer: OffPolicyTrainer, updates: int) -> tuple[list[dict], dict]:
    """Metrics but for times, and all that a checkpoint keeps."""
    metrics = [trainer.update() for _ in range(updates)]
    timeless = [{n: repr(v) for n, v in m.items() if "sps" not in n and "time" not in n} for m in metrics]
    return timeless, {name: value.clone() for name, value in trainer.tensors().items()}


def assert_same(one, other) -> None:
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    for name, value in one[1].items():
        assert value.numpy().tobytes() == other[1][name].contiguous().numpy().tobytes(), name


@pytest.mark.parametrize(
    "values",
    [
        {"state_norm": True, "rmsprop_correction": True, "shared_actor": False},
        {"algorithm": "k-maddpg", "levels": 3, "updates_per_sample": 1.7},
        {"algorithm": "k-maddpg", "env": "toy/climbing", "target_interval": 3, "agent_id": True},
        {"env": "toy/climbing", "preset": "smac", "recurrent": True, "levels": 1, "num_envs": 3, "warmup": 10},
        {"updates_per_sample": 0.3, "optimizer": "adam", "precision": "bf16", "anneal_lr": True},
        {"recurrent": True, "num_envs": 3},  # outputs that are not in the order of their axes
    ],
    ids=str,
)
def test_it_is_the_same_run(values):
    plain, hosted = trainer_for(CPU, **values), trainer_for(HOSTED, **values)
    expected = after(plain, 4)
    assert "critic_loss" in expected[0][-1]
    assert_same(expected, after(hosted, 4))
    again = trainer_for(HOSTED, **values)
    again.restore(expected[1], plain.counters())
    back = trainer_for(CPU, **values)
    back.restore(hosted.tensors(), hosted.counters())
    next_one = after(plain, 1)
    assert_same(next_one, after(again, 1))
    assert_same(next_one, after(back, 1))
    assert again.counters() == plain.counters()
    assert again.evaluate(3) == plain.evaluate(3)


@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("name", ["k-facmac", "k-maddpg"])
def test_padding_changes_nothing(name, continuous):
    """A card takes episodes at their longest: the same updates as from minibatches as long as their longest episode."""
    values = {
        "recurrent": True,
        "last_action": True,
        "td_lambda": 0.7,
        "state_norm": True,
        "levels": 3,
        "batch_size": 2,
    }
    cut, padded = (Case(name, continuous, **values) for _ in range(2))
    experience = padded.experience
    experience.place = HOSTED
    experience._lengths = experience.ring.rows[:, -1].long().numpy()
    learning = OnDevice(padded.algorithm, experience, padded.generator, HOSTED, 3, None)
    learning.learn(3, True, {"time/replay": 0.0})
    learning.learn(2, True, {"time/replay": 0.0})
    steps = set()
    for _ in range(5):
        batch = cut.experience.sample(cut.generator)
        cut.algorithm.update(batch, cut.generator)
        steps.add(batch.steps)
    assert min(steps) < experience.longest
    for one, other in zip(cut.algorithm.learners, padded.algorithm.learners, strict=True):
        torch.testing.assert_close(one.store.slot("theta"), other.store.slot("theta"), rtol=0, atol=1e-11)


QUEUED = [
    {"env": "toy/meetup", "state_norm": True, "rmsprop_correction": True},
    {"env": "toy/meetup", "algorithm": "k-maddpg", "shared_actor": False, "levels": 3},
    {"algorithm": "k-maddpg", "preset": "mamujoco", "agent_id": True, "target_interval": 1, "levels": 3},
    {"preset": "mamujoco", "shared_actor": False, "shared_critic": False, "optimizer": "adam"},
    {"recurrent": True},
    {"recurrent": True, "algorithm": "k-maddpg", "shared_actor": False, "td_lambda": 0.0},
]


def longer(*args, **options):
    """An environment that says its episodes have up to four steps."""
    env = make(*args, **options)
    env.spec = replace(env.spec, max_episode_steps=4)
    return env


def queue_updates(monkeypatch, **values):
    """Two updates, and what acting asks of a card, on torch's device meta; kernels are not launched."""
    gpu = {name: import_module(f"kpg_fast.kernels.{name}.gpu") for name in ("mlp", "hypernetwork", "mixer", "linear")}
    for name in ("mlp", "hypernetwork"):
        monkeypatch.setattr(gpu[name], "rows_product", lambda *args, **options: None)
    monkeypatch.setattr(gpu["linear"], "weights_product", lambda *args: None)
    monkeypatch.setattr(gpu["mixer"], "_launch", lambda *args: None)
    for name in ("mlp", "hypernetwork", "mixer"):
        monkeypatch.setattr(f"kpg_fast.kernels.{name}.ref", gpu[name])
    monkeypatch.setattr("kpg_fast.off_policy.trainer.make", longer)
    options = {} if "env" in values else {"env": "toy/climbing", "preset": "smac"}
    trainer = trainer_for(Place(CARD, queued=True, hosted=True), **(options | values))
    learning, player = trainer.learning, trainer.explorer
    trainer.experience.ring.written = 20
    if trainer.settings.recurrent:
        trainer.experience._lengths[:] = 3
    sent = learning._send(2)
    monkeypatch.setattr(learning, "_send", lambda count: sent)
    x = torch.empty(trainer.spec.num_agents, 2, trainer.algorithm.actor.inputs, device=CARD)
    reset, envs = torch.empty(2, dtype=torch.bool, device=CARD), torch.empty(2, dtype=torch.int64, device=CARD)
    with Queued():
        learning.learn(2, True, {"time/replay": 0.0})
        assert player._asked(x, reset, envs).device == CARD
    assert trainer.algorithm.updates == trainer.algorithm.critic.steps == 2


@pytest.mark.parametrize("values", QUEUED, ids=str)
def test_nothing_waits_for_the_card(monkeypatch, values):
    queue_updates(monkeypatch, **values)


@pytest.mark.parametrize(
    ("wait", "error"),
    [
        (lambda batch: batch.reward.sum().item(), "item"),
        (lambda batch: batch.reward[batch.last], "nonzero"),
        (lambda batch: batch.weight * torch.ones(8), "mixes"),
        (lambda batch: torch.eye(3).to(CARD), "copies to the card"),
    ],
)
def test_waiting_is_seen(monkeypatch, wait, error):
    monkeypatch.setattr(OffPolicyAlgorithm, "learn", lambda self, batch, *_, **__: wait(batch))
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError), match=error):
        queue_updates(monkeypatch)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replay_dir": "replay"}, "in the card's memory"),
        ({"precision": "mixed-lookahead", "preset": "mamujoco"}, "fp32 or bf16 or tf32 only"),
        ({"precision": "tf32"}, "recurrent agents runs in fp32 only"),
        ({"env": "toy/meetup"}, "trains on the cpu"),
        ({"debug_drift": True}, "--no-graphs"),
        ({}, "without CUDA|finds no card"),
    ],
)
def test_what_a_card_does_not_have_is_refused(values, message):
    if torch.cuda.is_available() and not values:
        pytest.skip("there is a card")
    with pytest.raises(UsageError, match=message):
        make_trainer(Config.make("k-facmac", **({"env": "smax/3m", "device": "cuda"} | TINY | values)))


def test_a_card_too_small_for_the_replay_says_so(monkeypatch):
    def no_memory(*args, **options):
        raise torch.OutOfMemoryError("out of memory")

    ring, row = Ring(1 << 20, 256, device=CARD), torch.zeros(1, 256)
    monkeypatch.setattr(torch, "empty", no_memory)
    with pytest.raises(UsageError, match=r"buffer_size = 1048576 rows takes 1\.0 GiB"):
        ring.add(row)
