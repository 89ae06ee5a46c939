"""K-MADDPG and K-FACMAC against their plain form in float64, and what must hold of one update."""

import numpy as np
import pytest
import torch

from kpg_fast.envs import EnvSpec, StepArrays
from kpg_fast.k_facmac import KFacmac
from kpg_fast.k_maddpg import KMaddpg
from kpg_fast.off_policy.experience import Episodes, Transitions
from kpg_fast.off_policy.settings import OffPolicy
from tests.naive_off_policy import Naive

ALGORITHMS = {"k-maddpg": KMaddpg, "k-facmac": KFacmac}
SMALL = {
    "batch_size": 4, "buffer_size": 30, "hidden": 5, "mixer_hidden": 3, "hyper_hidden": 4,
    "lr": 0.01, "critic_lr": 0.01, "tau": 0.05,
}  # fmt: skip


def spec_of(continuous: bool, num_agents: int = 3, num_actions: int = 2) -> EnvSpec:
    """Three agents of which the last has an actuator less, or three actions to choose from."""
    high = np.ones((num_agents, num_actions), np.float32)
    high[-1, -1] = 0
    return EnvSpec(
        name="test", num_envs=3, num_agents=num_agents, obs_size=4, state_size=3,
        num_actions=num_actions if continuous else 3, max_episode_steps=4,
        action_low=-high if continuous else None, action_high=high if continuous else None,
    )  # fmt: skip


class Case:
    """An algorithm with experience of random steps, and its naive double."""

    def __init__(self, name: str, continuous: bool = True, levels: int = 2, seed: int = 0, **values) -> None:
        self.settings = OffPolicy(**(SMALL | values))
        self.spec = spec_of(continuous)
        self.experience = (Episodes if self.settings.recurrent else Transitions)(
            self.spec, self.settings, torch.float64
        )
        inputs = self.spec.obs_size + self.experience.appended
        self.algorithm = ALGORITHMS[name](self.spec, self.settings, levels, inputs, torch.float64)
        self.algorithm.initialise(torch.Generator().manual_seed(seed))
        scale_up(self.algorithm)
        self.naive = Naive(self.algorithm)
        self.play(np.random.default_rng(seed))
        self.generator = torch.Generator().manual_seed(seed + 1)

    def play(self, rng: np.random.Generator) -> None:
        out = StepArrays.empty(self.spec)
        self.see(rng, out)
        self.experience.see(out)
        for _ in range(14):
            e, n, a = self.spec.num_envs, self.spec.num_agents, self.spec.num_actions
            action = rng.uniform(-1, 1, (e, n, a)) if self.spec.continuous else rng.integers(0, a, (e, n))
            self.see(rng, out)
            out.reward[:], out.valid[:] = rng.normal(size=e), rng.random(e) < 0.95
            ends = rng.random(e)
            out.terminated[:], out.truncated[:] = ends < 0.25, (ends >= 0.25) & (ends < 0.4)
            if self.settings.recurrent:  # an episode has an end
                out.truncated |= (self.experience.step >= self.spec.max_episode_steps - 1) & ~out.terminated
            out.last_obs[:], out.last_state[:] = rng.normal(size=out.last_obs.shape), rng.normal(size=(e, 3))
            self.experience.record(action.astype(np.float32 if self.spec.continuous else np.int32), out)

    def see(self, rng: np.random.Generator, out: StepArrays) -> None:
        out.obs[:], out.state[:] = rng.normal(size=out.obs.shape), rng.normal(size=out.state.shape)
        out.avail_actions[:] = rng.random(out.avail_actions.shape) < 0.7
        out.avail_actions[..., 0] = True

    def samples(self) -> list[dict]:
        """The samples that the next minibatch is made of, one by one; the generator stays where it is."""
        state = self.generator.get_state()
        rows = self.experience.ring.take(self.experience.draw(self.generator))
        self.generator.set_state(state)
        return [self.sample_of(row) for row in rows]

    def sample_of(self, row: torch.Tensor) -> dict:
        columns = self.experience.columns
        if self.settings.recurrent:
            length = int(row[-1])
            fields = columns.views(row[:-1].view(-1, columns.width)[: length + 1])
            one = {"action", "reward", "terminated"}
            sample = {name: field[:length] if name in one else field for name, field in fields.items()}
        else:
            fields = columns.views(row)
            sample = {name: fields[name][None] for name in ("action", "reward", "terminated")}
            for name in ("obs", "state", "avail"):
                if name in fields:
                    sample[name] = torch.stack([fields[name], fields[f"next_{name}"]])
        return {name: value.double() for name, value in sample.items()} | {"avail": sample.get("avail")}

    def update_both(self) -> None:
        samples = self.samples()
        batch = self.experience.sample(self.generator)
        state = self.generator.get_state()
        noise = self.algorithm.actor.noise(batch, self.generator)
        if noise is not None:
            noise = noise.view(self.spec.num_agents, batch.steps, -1, self.spec.num_actions)
        self.generator.set_state(state)
        self.algorithm.update(batch, self.generator)
        self.naive.update(samples, noise)

    def worst_difference(self) -> float:
        algorithm, naive = self.algorithm, self.naive
        pairs = [(algorithm.actor.learner.theta, g, net) for g, net in enumerate(naive.actors)]
        pairs += [(algorithm.actor.learner.views("target"), g, naive.targets[g]) for g in range(len(naive.actors))]
        for slot, nets in (("theta", naive.learned), ("target", naive.targets)):
            nets = nets[len(naive.actors) :]
            if naive.facmac:
                utility, mixer = algorithm._parameters(slot)
                pairs += [(utility, g, net) for g, net in enumerate(nets[:-1])] + [(mixer, 0, nets[-1])]
            else:
                pairs += [(algorithm.critic.views(slot), g, net) for g, net in enumerate(nets)]
        return max(
            float((value[g] - getattr(net, name.replace(".", "_")).detach()).abs().max())
            for views, g, net in pairs
            for name, value in views.items()
        )


def scale_up(algorithm) -> None:
    """Larger weights than at the start of a run, so that levels differ and no gradient is lost in rounding."""
    for learner in (algorithm.actor.learner, algorithm.critic):
        learner.store.slot("theta").mul_(3)
        learner.store.copy("theta", "target")


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_one_level_is_the_base_algorithm_over_20_updates(name, shared):
    case = Case(name, levels=1, shared_actor=shared, shared_critic=name == "k-facmac")
    for _ in range(20):
        case.update_both()
    assert case.worst_difference() < 1e-12


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_levels_equal_the_naive_loop(name, shared, levels):
    case = Case(name, levels=levels, shared_actor=shared, shared_critic=not shared, optimizer="rmsprop")
    for _ in range(2):
        case.update_both()
    assert case.worst_difference() < 1e-12


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("k-facmac", {"mixer": "nonmonotonic", "optimizer": "adam", "agent_id": True}),
        ("k-facmac", {"actor_reg": 0.0, "levels": 3, "target_interval": 2}),
        ("k-facmac", {"optimizer": "sgd", "max_grad_norm": 100.0, "levels": 3}),
        ("k-maddpg", {"level1_others": "current", "levels": 3}),
        ("k-maddpg", {"shared_actor": False, "shared_critic": True, "optimizer": "adam"}),
        ("k-facmac", {"continuous": False, "actor_reg": 0.0, "levels": 3}),
        ("k-maddpg", {"continuous": False, "shared_actor": False, "agent_id": True}),
        ("k-facmac", {"recurrent": True, "last_action": True}),
        ("k-facmac", {"recurrent": True, "continuous": False, "agent_id": True, "last_action": True, "actor_reg": 0.0}),
        ("k-facmac", {"recurrent": True, "continuous": False, "shared_actor": False, "td_lambda": 0.0}),
        ("k-maddpg", {"recurrent": True, "continuous": False, "last_action": True, "shared_critic": False}),
    ],
)  # fmt: skip
def test_options_equal_the_naive_loop(name, values):
    case = Case(name, **values)
    for _ in range(3):
        case.update_both()
    assert case.worst_difference() < 1e-12


def test_rmsprop_can_be_corrected_as_adam_is():
    """Five updates of the actor by the textbook's formula, from the gradients that the learner saw."""
    case = Case("k-facmac", levels=1, rmsprop_correction=True, max_grad_norm=1e9)
    learner, s = case.algorithm.actor.learner, case.settings
    theta, square = learner.store.slot("theta").clone(), 0.0
    for t in range(1, 6):
        case.algorithm.update(case.experience.sample(case.generator), case.generator)
        grad = learner.store.slot("grad")
        square = 0.99 * square + 0.01 * grad.square()
        theta -= s.lr * grad / ((square / (1 - 0.99**t)).sqrt() + s.rmsprop_eps)
        torch.testing.assert_close(learner.store.slot("theta"), theta, rtol=0, atol=1e-12)


def test_maddpg_with_current_actions_is_another_update():
    base, current = (Case("k-maddpg", levels=1, level1_others=others) for others in ("base", "current"))
    for case in (base, current):
        case.update_both()
    theta = [case.algorithm.actor.learner.store.slot("theta") for case in (base, current)]
    assert (theta[0] - theta[1]).abs().max() > 1e-6


@pytest.mark.parametrize("name", ALGORITHMS)
def test_levels_leave_theta_and_the_optimiser_alone(name):
    """Checksums of theta, its optimiser's state and the critics before and after K levels, up to the commit."""
    case = Case(name, levels=4)
    case.update_both()
    algorithm = case.algorithm
    learner, store = algorithm.actor.learner, algorithm.actor.learner.store
    seen = []
    original = learner.step

    def step(grads, k):
        slot = original(grads, k)
        sums = [store.checksum(s) for s in ("theta", *learner.moments)]
        seen.append((*sums, algorithm.critic.store.checksum("theta")))
        return slot

    learner.step = step
    before = tuple(store.checksum(s) for s in ("theta", *learner.moments))
    batch = case.experience.sample(case.generator)
    algorithm.update(batch, case.generator)
    assert len(seen) == 4
    assert {s[:-1] for s in seen} == {before}
    assert len({s[-1] for s in seen}) == 1
    assert store.checksum("theta") != before[0]


def test_level_options_change_nothing_of_one_level():
    """With K = 1 the way levels are computed must not show, not in one bit."""
    results = []
    for measure in (False, True):
        case = Case("k-facmac", levels=1)
        case.algorithm.update(case.experience.sample(case.generator), case.generator, measure)
        results.append(case.algorithm.actor.learner.store.checksum("theta"))
    assert results[0] == results[1]


def test_float32_update_stays_near_float64():
    double, single = Case("k-facmac", levels=3), Case("k-facmac", levels=3)
    settings, spec = single.settings, single.spec
    algorithm = KFacmac(spec, settings, 3, spec.obs_size, torch.float32)
    for mine, theirs in (
        (algorithm.actor.learner, single.algorithm.actor.learner),
        (algorithm.critic, single.algorithm.critic),
    ):
        for slot in ("theta", "target"):
            mine.store.slot(slot).copy_(theirs.store.slot(slot))
    experience = Transitions(spec, settings, torch.float32)
    experience.ring = single.experience.ring
    double.algorithm.update(double.experience.sample(double.generator), double.generator)
    algorithm.update(experience.sample(single.generator), single.generator)
    moved = double.algorithm.actor.learner.store.slot("theta") - single.algorithm.actor.learner.store.slot("theta")
    error = algorithm.actor.learner.store.slot("theta") - double.algorithm.actor.learner.store.slot("theta")
    assert error.abs().max() < 1e-3 * moved.abs().max()
