import pytest
import torch

from kpg_fast import _C
from kpg_fast.errors import UsageError
from kpg_fast.kernels.k_level_surrogate import CLIP_MODES, STATS, k_level_surrogate, others_log_ratio, ref
from tests.kernels.oracle import as_exact_as_torch, kernels, threads
from tests.kernels.test_policy import rows

SHAPES = [(1, 1, 1, 2), (3, 2, 5, 7), (1, 7, 3, 17), (41, 13, 2, 10)]


def batch(steps, envs, agents, actions):
    """Positional inputs; ratios spread wide enough that a good part is clipped on either side."""
    logits, avail, action = rows(steps, envs, agents, actions, scale=1.0)
    generator = torch.Generator().manual_seed(actions)
    shape = (steps, envs, agents)
    log_prob = ref.log_prob_entropy(logits, avail, action)[0]
    spread = [torch.randn(shape, generator=generator) * 0.3 for _ in range(2)]
    advantage = torch.randn(shape, generator=generator)
    mask = torch.rand(shape, generator=generator) < 0.8
    mask[..., -1] = True
    return [logits, avail, action, log_prob + spread[0], advantage, mask, spread[1]]


def run(f, inputs, double=False, **options):
    """loss, its gradient in the logits, log_prob, stats."""
    inputs = [t.double() if double and t is not None and t.is_floating_point() else t for t in inputs]
    logits = inputs[0].clone().requires_grad_()
    loss, log_prob, stats = f(logits, *inputs[1:], **options)
    return loss.detach(), torch.autograd.grad(loss, logits)[0], log_prob, stats


@pytest.mark.parametrize("isa", _C.kernel_names())
@pytest.mark.parametrize("mode", CLIP_MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_gradient_and_statistics_are_as_exact_as_torch(shape, mode, isa):
    inputs = batch(*shape)
    options = {"clip_eps": 0.2, "ent_coef": 0.03, "clip_mode": mode, "others_clip_eps": 0.1}
    with kernels(isa):
        ours = run(k_level_surrogate, inputs, **options)
    single, exact = (run(ref.k_level_surrogate, inputs, double, **options) for double in (False, True))
    for name, *results in zip(("loss", "dlogits", "log_prob"), ours, single, exact, strict=False):
        as_exact_as_torch(*results, name)
    for i, name in enumerate(STATS):
        as_exact_as_torch(ours[3][i], single[3][i], exact[3][i], name)


def test_level_one_is_plain_ppo():
    inputs = batch(3, 2, 5, 7)
    zero = run(k_level_surrogate, [*inputs[:6], torch.zeros(3, 2, 5)], clip_eps=0.2)
    none = run(k_level_surrogate, [*inputs[:6], None], clip_eps=0.2)
    assert all(torch.equal(a, b) for a, b in zip(zero, none, strict=True))


def test_equal_ratios_are_not_clipped():
    """At rho = 1 both sides of the minimum are equal and the gradient is that of rho A, whatever the rounding."""
    logits, avail, action, _, advantage, mask, _ = batch(9, 13, 2, 10)
    mask[:] = True
    log_prob = ref.log_prob_entropy(logits, avail, action)[0]
    _, gradient, _, stats = run(
        k_level_surrogate, [logits, avail, action, log_prob, advantage, mask, None], clip_eps=0.2
    )
    assert stats[STATS.index("clip_fraction")] == 0
    alive = avail.any(-1)
    taken = gradient.gather(-1, action.long().unsqueeze(-1)).squeeze(-1)[alive & (log_prob < -1e-3)]
    assert (taken != 0).all()


@pytest.mark.parametrize("rate", [0.9, 1.1])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_the_bound_itself_is_still_free(rate, advantage):
    """A ratio rounded to exactly 1 +- eps passes its gradient, as in torch."""
    logits = torch.zeros(1, 1, 1, 2)
    eps = abs(rate - 1)
    log_m = torch.tensor(1 + eps if rate > 1 else 1 - eps).log().view(1, 1, 1)
    old = ref.log_prob_entropy(logits, None, torch.zeros(1, 1, 1))[0]
    inputs = [logits, None, torch.zeros(1, 1, 1), old, torch.full((1, 1, 1), advantage), torch.ones(1, 1, 1), log_m]
    ours, torchs = (
        run(f, inputs, clip_eps=eps, ent_coef=0.0, clip_mode="product", others_clip_eps=eps)
        for f in (k_level_surrogate, ref.k_level_surrogate)
    )
    torch.testing.assert_close(ours[1], torchs[1])


def test_rows_of_weight_zero_are_not_read():
    inputs = batch(3, 2, 5, 7)
    clean = run(k_level_surrogate, inputs, clip_eps=0.2, ent_coef=0.1)
    out = ~inputs[5]
    for i in (3, 4, 6):
        inputs[i] = torch.where(out, float("nan"), inputs[i])
    spoilt = run(k_level_surrogate, inputs, clip_eps=0.2, ent_coef=0.1)
    assert torch.equal(clean[0], spoilt[0])
    assert torch.equal(clean[1], spoilt[1])
    assert (clean[1][out] == 0).all()


def test_nobody_counts():
    inputs = batch(3, 2, 5, 7)
    inputs[5] = torch.zeros(3, 2, 5)
    loss, gradient, _, stats = run(k_level_surrogate, inputs, clip_eps=0.2, ent_coef=0.1)
    assert loss == 0
    assert (gradient == 0).all()
    assert (stats == 0).all()


def test_all_dead_but_one():
    inputs = batch(3, 2, 5, 7)
    inputs[5] = torch.zeros(3, 2, 5)
    inputs[5][1, 1, 3] = 0.5
    ours, exact = (
        run(f, inputs, **o)
        for f, o in (
            (k_level_surrogate, {"clip_eps": 0.2}),
            (ref.k_level_surrogate, {"clip_eps": 0.2, "ent_coef": 0.0, "clip_mode": "product", "others_clip_eps": 0.2}),
        )
    )
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b)


def test_separate_actors_give_a_permuted_view():
    inputs = batch(3, 2, 5, 7)
    expected = run(k_level_surrogate, inputs, clip_eps=0.2, ent_coef=0.1)
    permuted = [
        t.permute(2, 0, 1, *range(3, t.dim())).contiguous().permute(1, 2, 0, *range(3, t.dim())) for t in inputs
    ]
    ours = run(k_level_surrogate, permuted, clip_eps=0.2, ent_coef=0.1)
    assert all(torch.equal(a, b) for a, b in zip(expected, ours, strict=True))


def test_results_do_not_depend_on_the_number_of_threads():
    inputs = batch(97, 13, 5, 10)
    results = []
    for count in (1, 2, 3):
        with threads(count):
            results.append(run(k_level_surrogate, inputs, clip_eps=0.2, ent_coef=0.1))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("agents", [1, 2, 27])
def test_others_log_ratio_leaves_out_oneself_and_the_dead(agents):
    now, old = torch.randn(2, 5, 4, agents)
    alive = torch.rand(5, 4, agents) < 0.7
    exact = ref.others_log_ratio(now.double(), old.double(), alive)
    as_exact_as_torch(others_log_ratio(now, old, alive), ref.others_log_ratio(now, old, alive), exact)
    log_rho = (now - old).masked_fill(~alive, 0).double()
    naive = [log_rho[..., [j for j in range(agents) if j != i]].sum(-1) for i in range(agents)]
    torch.testing.assert_close(others_log_ratio(now, old, alive).double(), torch.stack(naive, -1), rtol=1e-5, atol=1e-6)


def test_bad_settings_are_refused():
    inputs = batch(1, 2, 2, 3)
    with pytest.raises(UsageError, match="did you mean product"):
        k_level_surrogate(*inputs, clip_eps=0.2, clip_mode="prodct")
    with pytest.raises(UsageError, match="clip_eps must be positive"):
        k_level_surrogate(*inputs, clip_eps=0.0)
