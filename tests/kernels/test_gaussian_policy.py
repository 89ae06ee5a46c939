"""The Gaussian policy against torch.distributions in float64, and its noise against its definition."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from kpg_fast.errors import UsageError
from kpg_fast.kernels import gaussian_policy
from kpg_fast.kernels.gaussian_policy import ref
from kpg_fast.kernels.k_level_surrogate import CLIP_MODES, surrogate_of_log_prob

N, A = 3, 5


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    moments = torch.randn(7, 4, N, 2 * A, generator=generator, dtype=torch.float64)
    action = torch.randn(7, 4, N, A, generator=generator, dtype=torch.float64)
    moving = torch.ones(N, A, dtype=torch.bool)
    moving[1, 3:] = False
    return moments, action, moving


def counters(rows):
    generator = torch.Generator().manual_seed(1)
    high = [2**32, 2**32, 2**40]
    return [torch.randint(0, most, (rows,), generator=generator) for most in high]


def test_log_prob_and_entropy(case):
    moments, action, moving = case
    moments.requires_grad_(True)
    log_prob, entropy = gaussian_policy.log_prob_entropy(moments, action, moving)
    normal = Normal(moments[..., :A], moments[..., A:].exp())
    torch.testing.assert_close(log_prob, (normal.log_prob(action) * moving).sum(-1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(entropy, (normal.entropy() * moving).sum(-1), rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(log_prob)
    ours = torch.autograd.grad((weight * log_prob + entropy).sum(), moments)[0]
    theirs = torch.autograd.grad(
        (weight * (normal.log_prob(action) * moving).sum(-1) + (normal.entropy() * moving).sum(-1)).sum(), moments
    )[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert (ours[:, :, 1, 3:A] == 0).all()
    assert (ours[:, :, 1, A + 3 :] == 0).all()


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0])
def test_a_change_is_exact_relative_to_itself(case, size):
    moments, action, moving = case
    change = size * torch.randn_like(moments)
    before, after = (ref.log_prob_entropy(m, action, moving)[0] for m in (moments, moments + change))
    exact = after - before
    got = gaussian_policy.log_prob_difference(moments.float(), change.float(), action.float(), moving)
    assert (got.double() - exact).norm() / exact.norm() < 1e-6
    if size == 1e-6:  # subtracting two float32 passes loses it
        two = [ref.log_prob_entropy(m.float(), action.float(), moving)[0] for m in (moments + change, moments)]
        assert ((two[0] - two[1]).double() - exact).norm() / exact.norm() > 1e-2


@pytest.mark.parametrize("size", [1, 3, 4, 5, 17])
def test_noise_is_as_defined(size):
    seed, row, step = counters(101)
    got = gaussian_policy.standard_normal(seed, row, step, 9, size)
    assert got.shape == (101, size)
    torch.testing.assert_close(got, ref.standard_normal(seed, row, step, 9, size), rtol=1e-6, atol=1e-7)


def test_noise_does_not_depend_on_the_batch_or_the_threads():
    seed, row, step = counters(5000)
    whole = gaussian_policy.standard_normal(seed, row, step, 9, 6)
    part = gaussian_policy.standard_normal(seed[77:79], row[77:79], step[77:79], 9, 6)
    assert torch.equal(whole[77:79], part)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert torch.equal(gaussian_policy.standard_normal(seed, row, step, 9, 6), whole)
    finally:
        torch.set_num_threads(threads)


def test_noise_is_normal_and_independent():
    rows = 200_000
    seed, step = torch.full((rows,), 3), torch.full((rows,), 12)
    x = gaussian_policy.standard_normal(seed, torch.arange(rows), step, 0, 8).double()
    spread = rows**-0.5
    assert x.mean(0).abs().max() < 5 * spread
    assert (x.square().mean(0) - 1).abs().max() < 5 * 2**0.5 * spread
    assert (x.pow(4).mean(0) - 3).abs().max() < 5 * 96**0.5 * spread
    correlation = np.corrcoef(x.numpy(), rowvar=False) - np.eye(8)
    assert np.abs(correlation).max() < 5 * spread
    assert x.abs().max() < 6
    later = gaussian_policy.standard_normal(seed, torch.arange(rows), step + 1, 0, 8).double()
    assert np.abs((x * later).mean(0).numpy()).max() < 5 * spread


def test_draws_have_the_moments_asked_for(case):
    moments, _, moving = case
    rows = 100_000
    asked = moments[0, 0].expand(rows, N, 2 * A)
    who = torch.arange(rows * N).view(rows, N)
    action, log_prob = gaussian_policy.sample(asked, moving, 5, who, 7)
    std = moments[0, 0, :, A:].exp()
    assert (((action.mean(0) - moments[0, 0, :, :A]) / std)[moving].abs() < 5 * rows**-0.5).all()
    assert ((action.std(0) / std)[moving] - 1).abs().max() < 5 * (2 * rows) ** -0.5
    assert (action[:, ~moving] == 0).all()
    torch.testing.assert_close(log_prob, gaussian_policy.log_prob_entropy(asked, action, moving)[0])
    greedy, _ = gaussian_policy.sample(asked, moving, 5, who, 7, greedy=True)
    assert torch.equal(greedy, asked[..., :A] * moving)


def test_what_does_not_fit_is_refused(case):
    moments, action, moving = case
    with pytest.raises(UsageError, match="moments"):
        gaussian_policy.log_prob_entropy(moments[..., 1:], action, moving)
    with pytest.raises(UsageError, match="dmoments"):
        gaussian_policy.log_prob_difference(moments, moments[..., 1:], action, moving)
    seed, row, step = counters(4)
    with pytest.raises(UsageError, match="step"):
        gaussian_policy.standard_normal(seed, row, step[1:], 0, 3)


def test_a_ratio_too_large_for_its_exponential_has_no_slope():
    """Where the clip holds, or a row does not count, nothing of the ratio may get into the gradient."""
    log_prob = torch.tensor([[[90.0, 200.0, -0.1, 300.0]]], requires_grad=True)
    zero, mask = torch.zeros(1, 1, 4), torch.tensor([[[True, True, True, False]]])
    for mode in CLIP_MODES:
        advantage, log_m = torch.tensor([[[1.0, 1.0, 1.0, -1.0]]]), torch.full((1, 1, 4), 0.05)
        loss = surrogate_of_log_prob(log_prob, zero, zero, advantage, mask, log_m, clip_eps=0.2, clip_mode=mode).loss
        (slope,) = torch.autograd.grad(loss, log_prob)
        assert torch.isfinite(loss)
        assert (slope[0, 0, [0, 1, 3]] == 0).all(), mode
        assert slope[0, 0, 2] < 0
