"""What the replay keeps of environment steps: final observations, time limits, broken steps, masks."""

import numpy as np
import pytest
import torch

from kpg_fast.envs import EnvSpec, StepArrays
from kpg_fast.off_policy.experience import Episodes, Transitions
from kpg_fast.off_policy.settings import OffPolicy

SPEC = EnvSpec("test", num_envs=2, num_agents=2, obs_size=1, state_size=1, num_actions=3, max_episode_steps=3)


def step(out: StepArrays, now: float, last: float = -1.0, **flags) -> StepArrays:
    """Everything seen after this step has the value ``now`` (environment 1: plus 0.5)."""
    for array, value in ((out.obs, now), (out.state, now), (out.last_obs, last), (out.last_state, last)):
        array[0], array[1] = value, value + 0.5
    out.reward[:] = now, now + 0.5
    out.avail_actions[:] = True
    out.avail_actions[..., int(now) % 3] = False
    for name in ("terminated", "truncated", "valid"):
        getattr(out, name)[:] = flags.get(name, [name == "valid"] * 2)
    return out


def fields(experience, index: int) -> dict[str, torch.Tensor]:
    row = experience.ring.rows[index]
    if isinstance(experience, Episodes):
        row = row[:-1].view(-1, experience.columns.width)
    return experience.columns.views(row)


def test_transitions_end_in_what_would_have_come_next():
    experience = Transitions(SPEC, OffPolicy(batch_size=3, buffer_size=10), torch.float32)
    out = StepArrays.empty(SPEC)
    experience.see(step(out, 1))
    action = np.array([[0, 1], [2, 0]], np.int32)
    assert experience.record(action, step(out, 2, terminated=[True, False])) == 2
    assert experience.record(action, step(out, 3, truncated=[True, False], valid=[True, False])) == 1
    first, other, second = (fields(experience, i) for i in range(3))
    assert (first["obs"][0, 0], first["next_obs"][0, 0], first["next_state"][0]) == (1, -1, -1)
    assert (first["terminated"], first["reward"]) == (1, 2)
    assert (other["obs"][0, 0], other["next_obs"][0, 0], other["terminated"]) == (1.5, 2.5, 0)
    assert first["action"].tolist() == [0, 1]
    # a time limit is no end: the value of what would have come next counts
    assert (second["obs"][0, 0], second["next_obs"][0, 0], second["terminated"]) == (2, -1, 0)
    # what is available after an episode's last step is not told
    assert torch.equal(first["next_avail"], first["avail"])
    assert other["next_avail"][0].tolist() == [1, 1, 0]
    batch = experience.sample(torch.Generator().manual_seed(0))
    assert batch.steps == 1
    assert batch.last.all()
    assert batch.weight.sum() == pytest.approx(1)
    assert batch.avail.dtype == torch.bool
    assert (batch.action.sum(-1) == 1).all()


def test_episodes_are_kept_whole_and_broken_ones_not_at_all():
    experience = Episodes(SPEC, OffPolicy(batch_size=50, buffer_size=10, recurrent=True), torch.float32)
    out = StepArrays.empty(SPEC)
    experience.see(step(out, 1))
    action = np.zeros((2, 2), np.int32)
    assert experience.record(action + 1, step(out, 2)) == 0
    assert experience.record(action, step(out, 3, last=9, terminated=[True, False], valid=[True, False])) == 1
    assert experience.record(action, step(out, 4, last=8, truncated=[True, True])) == 1
    assert len(experience.ring) == 2  # environment 1's had a broken step
    long, short = fields(experience, 0), fields(experience, 1)
    assert long["obs"][:, 0, 0].tolist() == [1, 2, 9, 0]
    assert long["reward"].tolist() == [2, 3, 0, 0]
    assert long["terminated"].tolist() == [0, 1, 0, 0]
    assert long["action"][:, 0].tolist() == [1, 0, 0, 0]
    assert short["obs"][:, 0, 0].tolist() == [3, 8, 0, 0]  # nothing of the episode before is left
    assert short["terminated"].sum() == 0
    batch = experience.sample(torch.Generator().manual_seed(0))
    by_step = batch.weight.view(2, 50)
    lengths = (by_step > 0).sum(0)
    assert set(lengths.tolist()) == {1, 2}
    assert batch.weight.sum() == pytest.approx(1)
    last = batch.last.view(2, 50)
    assert torch.equal(last[1], lengths == 2)
    assert torch.equal(last[0], lengths == 1)


def test_actors_see_their_id_and_last_action():
    settings = OffPolicy(batch_size=4, buffer_size=10, recurrent=True, last_action=True, agent_id=True)
    experience = Episodes(SPEC, settings, torch.float32)
    assert experience.appended == 5
    out = StepArrays.empty(SPEC)
    experience.see(step(out, 1))
    action = np.array([[2, 1], [0, 0]], np.int32)
    experience.record(action, step(out, 2))
    experience.record(action, step(out, 3, last=9, terminated=[True, False]))
    batch = experience.sample(torch.Generator().manual_seed(0))
    whole = batch.whole_obs.view(2, 3, 4, 6)
    assert whole[0, :, 0].tolist() == [[1, 0, 0, 0, 1, 0], [2, 0, 0, 1, 1, 0], [9, 0, 0, 1, 1, 0]]
    assert whole[1, 1, 0].tolist() == [2, 0, 1, 0, 0, 1]
    assert torch.equal(batch.next_obs.reshape(2, 2, 4, 6), whole[:, 1:])
    acting = experience.actor_inputs(torch.tensor([[[5.0], [6.0]]]), torch.eye(3)[torch.tensor([[2], [0]])])
    assert acting.tolist() == [[[5, 0, 0, 1, 1, 0]], [[6, 1, 0, 0, 0, 1]]]


def test_critics_may_see_normalised_states():
    """After one minibatch its stored states have mean 0 and deviation 1; what never changes is 0, not nan."""
    spec = EnvSpec("test", num_envs=1, num_agents=1, obs_size=1, state_size=3, num_actions=2, max_episode_steps=9)
    experience = Transitions(spec, OffPolicy(batch_size=200, buffer_size=500, state_norm=True), torch.float64)
    generator = torch.Generator().manual_seed(0)
    rows = torch.zeros(300, experience.columns.width)
    for name in ("state", "next_state"):
        drawn = torch.randn(300, 2, generator=generator) * torch.tensor([5.0, 300.0]) + torch.tensor([-2.0, 900.0])
        experience.columns.views(rows)[name][:, :2] = drawn
        experience.columns.views(rows)[name][:, 2] = 7
    experience.ring.add(rows)
    batch = experience.sample(generator)
    assert batch.state[:, :2].mean(0).abs().max() < 1e-6
    torch.testing.assert_close(batch.state[:, :2].std(0), torch.ones(2, dtype=torch.float64), rtol=0, atol=0.01)
    assert (batch.state[:, 2] == 0).all()
    assert 0 < batch.next_state[:, :2].mean(0).abs().max() < 0.5
    before = experience.state_norm.count.item()
    experience.sample(generator)
    assert experience.state_norm.count.item() == before + 200
