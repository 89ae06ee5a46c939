"""What the precision of the lookahead, and cheaper ones, do to the correction theta^(K) - theta^(1)."""

import pytest
import torch

from bench.lookahead import compare, correction
from bench.update import first_minibatch
from kpg_fast import _C
from kpg_fast.config import Config
from kpg_fast.errors import UsageError
from kpg_fast.k_mappo_levels import lookahead_mask
from kpg_fast.k_mappo_settings import KMappo
from kpg_fast.k_mappo_trainer import KMappoTrainer

SMALL = {"num_envs": 32, "num_steps": 24, "num_minibatches": 2, "num_epochs": 2, "hidden": 40, "total_steps": 10**6}
CONTINUOUS = {"env_options": ("action_type=continuous",), "input_norm": True, "ent_coef": 0.01}
VARIANTS = [
    {},
    {"shared_actor": False},
    {"agent_id": True},
    {"recurrent": False},
    {"level1_others": "current"},
    CONTINUOUS,
    CONTINUOUS | {"shared_actor": False},
]


def trainer_for(**values) -> KMappoTrainer:
    return KMappoTrainer(Config.make("k-mappo", "smax/2s3z", preset="jaxmarl", **(SMALL | {"levels": 2} | values)))


def drifted(**values):
    """A trainer in the middle of its epochs: theta is not the policy that the minibatch was collected with."""
    trainer = trainer_for(**values)
    trainer.update()
    batch = first_minibatch(trainer)
    for _ in range(3):
        trainer.algorithm.update_actor(batch)
    return trainer, batch


@pytest.fixture(scope="module")
def case():
    return drifted()


@pytest.mark.parametrize("rate", [2e-5, 2e-4, 2e-3])
def test_the_correction_survives_bf16_at_every_learning_rate(case, rate):
    trainer, batch = case
    exact = correction(trainer, batch, rate, torch.float64)
    assert exact.norm() > 0
    mixed = compare(correction(trainer, batch, rate, torch.float32, precision="mixed-lookahead"), exact)
    assert mixed.relative_error < 0.1
    everywhere = compare(correction(trainer, batch, rate, torch.float32, precision="bf16"), exact)
    assert everywhere.cosine > 0.98


def test_the_first_minibatch_after_a_rollout_has_the_lookahead_alone():
    """No drift from the policy of the rollout yet: the correction is second order in the step, and still there."""
    trainer = trainer_for()
    trainer.update()
    batch = first_minibatch(trainer)
    exact = correction(trainer, batch, 2e-3, torch.float64)
    mixed = correction(trainer, batch, 2e-3, torch.float32, precision="mixed-lookahead")
    assert compare(mixed, exact).relative_error < 0.1


@pytest.mark.parametrize("values", VARIANTS, ids=str)
@pytest.mark.parametrize("levels", [2, 3])
def test_every_kind_of_actor(values, levels):
    trainer, batch = drifted(**values)
    exact = correction(trainer, batch, 2e-3, torch.float64, levels=levels)
    mixed = correction(trainer, batch, 2e-3, torch.float32, levels=levels, precision="mixed-lookahead")
    assert compare(mixed, exact).relative_error < 0.1


@pytest.mark.parametrize(
    "values", [{"precision": "mixed-lookahead"}, {"lookahead_share": 0.5}, {"lookahead_window": 4}], ids=str
)
def test_one_level_is_float32_bit_for_bit(values):
    """There is no lookahead to make cheaper."""
    plain, other = trainer_for(levels=1), trainer_for(levels=1, **values)
    for _ in range(2):
        plain.update()
        other.update()
    for part in ("actor", "critic"):
        expected, got = (getattr(trainer, part).learner.tensors() for trainer in (plain, other))
        assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_in_float64_every_level_is_exact(case):
    trainer, batch = case
    exact, mixed = (correction(trainer, batch, 2e-3, torch.float64, precision=p) for p in ("fp32", "mixed-lookahead"))
    assert torch.equal(exact, mixed)


@pytest.mark.parametrize("values", [{"lookahead_share": 0.5}, {"lookahead_window": 6}], ids=str)
def test_cheaper_lookaheads_come_near_and_are_not_the_exact_one(case, values):
    trainer, batch = case
    exact = correction(trainer, batch, 2e-3, torch.float32)
    near = compare(correction(trainer, batch, 2e-3, torch.float32, **values), exact)
    assert near.cosine > 0.9
    assert near.relative_error > 0


def test_a_share_of_environments_is_spread_over_all():
    mask = torch.ones(2, 6, 8, 2, dtype=torch.bool)
    chosen = lookahead_mask(mask, KMappo(lookahead_share=0.25))
    assert chosen[0, 0, :, 0].nonzero().flatten().tolist() == [3, 7]
    assert (chosen == chosen[:1, :1, :, :1]).all()
    assert torch.equal(lookahead_mask(mask, KMappo()), mask)
    mask[1, 2, 3, 1] = False
    assert not lookahead_mask(mask, KMappo(lookahead_share=0.25))[1, 2, 3, 1]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_windows_are_dealt_out_to_every_environment(share):
    chosen = lookahead_mask(
        torch.ones(1, 12, 8, 2, dtype=torch.bool), KMappo(lookahead_share=share, lookahead_window=3)
    )[0]
    assert (chosen.float().mean((0, 2)) == share).all()
    assert (chosen.float().mean((1, 2)) == share).all()
    windows = chosen.view(4, 3, 8, 2)
    assert (windows == windows[:, :1, :, :1]).all()


def test_too_small_a_share_is_refused():
    with pytest.raises(UsageError, match=r"lookahead_share = 0.01 of the 16 samples .* the least is 0.0625"):
        trainer_for(lookahead_share=0.01)
    with pytest.raises(UsageError, match=r"of the 3 windows of a sample"):
        trainer_for(lookahead_share=0.3, lookahead_window=8)
    with pytest.raises(UsageError, match="precision"):
        trainer_for(precision="mixed")


@pytest.mark.parametrize("values", [{"levels": 3}, {"levels": 3, "precision": "mixed-lookahead"}], ids=str)
def test_an_update_takes_no_memory_that_an_earlier_one_did_not(values):
    trainer = trainer_for(**values)
    for _ in range(2):
        trainer.update()
    taken = _C.memory_nbytes()
    assert taken > 0
    for _ in range(3):
        trainer.update()
    assert _C.memory_nbytes() == taken
