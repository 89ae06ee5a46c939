import pytest
import torch

from kpg_fast.kernels.k_level_surrogate import CLIP_MODES, STATS, gpu, ref
from tests.gpu.exactness import hold, move, results, twice
from tests.kernels.test_k_level_surrogate import batch, run

# one, primes and one agent, one past a block of 64 rows, many actions
SHAPES = [(1, 1, 1, 2), (7, 5, 1, 17), (3, 43, 1, 10), (3, 2, 5, 36)]
OPTIONS = (0.2, 0.03, "product", 0.1)


def definition(*inputs):
    loss, gradient, log_prob, stats = run(ref.k_level_surrogate, list(inputs[:7]), **named(*inputs[7:]))
    return loss, gradient, log_prob, *stats


def named(clip_eps, ent_coef, clip_mode, others_clip_eps):
    return {"clip_eps": clip_eps, "ent_coef": ent_coef, "clip_mode": clip_mode, "others_clip_eps": others_clip_eps}


def surrogate(*inputs):
    loss, gradient, log_prob, stats = gpu.k_level_surrogate(*inputs)
    return loss, gradient, log_prob, *stats


@pytest.mark.parametrize("mode", CLIP_MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_gradient_and_statistics_are_as_exact_as_torch(device, shape, mode):
    inputs = (*batch(*shape), 0.2, 0.03, mode, 0.1)
    ours = twice(surrogate, *move(device, *inputs))
    hold(("loss", "dlogits", "log_prob", *STATS), ours, definition, inputs, terms=1.0)


@pytest.mark.parametrize("case", ["level-one", "everything-available", "one-alive"])
def test_what_may_be_left_out(device, case):
    inputs = batch(3, 2, 5, 7)
    if case == "level-one":
        inputs[6] = None
    elif case == "everything-available":
        inputs[1] = None
    else:
        inputs[5] = torch.zeros(3, 2, 5)
        inputs[5][1, 1, 3] = 0.5
    inputs = (*inputs, *OPTIONS)
    hold(
        ("loss", "dlogits", "log_prob", *STATS), twice(surrogate, *move(device, *inputs)), definition, inputs, terms=1.0
    )


def test_rows_of_weight_zero_are_not_read(device):
    inputs = batch(3, 2, 5, 7)
    clean = twice(gpu.k_level_surrogate, *move(device, *inputs), *OPTIONS)
    out = ~inputs[5]
    for i in (3, 4, 6):
        inputs[i] = torch.where(out, float("nan"), inputs[i])
    spoilt = twice(gpu.k_level_surrogate, *move(device, *inputs), *OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(clean, spoilt, strict=True))
    assert (clean[1][out] == 0).all()


@pytest.mark.parametrize("mode", CLIP_MODES)
def test_what_is_not_a_number_stays_so(device, mode):
    """A card's own minimum and maximum would clip it into a number."""
    inputs = batch(3, 2, 5, 7)
    inputs[5][:] = True
    inputs[6][1, 1, 2] = float("nan")
    loss, gradient, *_ = gpu.k_level_surrogate(*move(device, *inputs), 0.2, 0.03, mode, 0.1)
    assert loss.isnan()
    assert gradient[1, 1, 2].isnan().any()


def test_nobody_counts(device):
    inputs = batch(3, 2, 5, 7)
    inputs[5] = torch.zeros(3, 2, 5)
    loss, gradient, _, stats = gpu.k_level_surrogate(*move(device, *inputs), *OPTIONS)
    assert loss == 0
    assert (gradient == 0).all()
    assert (stats == 0).all()


def test_equal_ratios_are_not_clipped(device):
    logits, avail, action, _, advantage, mask, _ = move(device, *batch(5, 13, 2, 10))
    mask[:] = True
    _, _, log_prob, _ = gpu.k_level_surrogate(logits, avail, action, advantage, advantage, mask, None, *OPTIONS)
    inputs = (logits, avail, action, log_prob, advantage, mask, None)
    stats = gpu.k_level_surrogate(*inputs, *OPTIONS)[3]
    assert stats[STATS.index("clip_fraction")] == 0
    assert stats[STATS.index("ratio")] == 1
    assert stats[STATS.index("approx_kl")] == 0


def test_separate_actors_give_a_permuted_view_and_get_one(device):
    inputs = batch(3, 2, 5, 7)
    expected = twice(gpu.k_level_surrogate, *move(device, *inputs), *OPTIONS)
    inputs[0] = inputs[0].permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3)
    inputs = move(device, *inputs)
    ours = gpu.k_level_surrogate(*inputs, *OPTIONS)
    assert ours[1].stride() == inputs[0].stride()
    assert all(torch.equal(a, b) for a, b in zip(expected, results(ours), strict=True))


def test_rates_may_lie_on_the_device(device):
    inputs = move(device, *batch(3, 2, 5, 7))
    eps, coef, others = rates = torch.tensor([[0.2], [0.03], [0.1]], device=device)
    numbers = rates.flatten().tolist()
    for mode in CLIP_MODES:
        plain = gpu.k_level_surrogate(*inputs, *numbers[:2], mode, numbers[2])
        read = gpu.k_level_surrogate(*inputs, eps, coef, mode, others)
        assert all(torch.equal(a.view(b.shape), b) for a, b in zip(read, plain, strict=True))


@pytest.mark.parametrize("agents", [1, 2, 27])
def test_others_log_ratio_leaves_out_oneself_and_the_dead(device, agents):
    now, old = torch.randn(2, 5, 13, agents)
    for alive in (torch.rand(5, 13, agents) < 0.7, None):
        ours = twice(gpu.others_log_ratio, *move(device, now, old, alive))
        hold(["log_m"], ours, ref.others_log_ratio, (now, old, alive))
