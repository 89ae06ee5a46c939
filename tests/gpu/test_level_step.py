import pytest
import torch

from kpg_fast.kernels.level_step import gpu, ref
from tests.gpu.exactness import hold, move, twice
from tests.kernels.test_level_step import IDS, SETTINGS, slots

# one, primes, one past a block
CASES = [((1, 1), 1.0), ((3, 7), None), ((3, 7), 1.0), ((2, 2049), 1.0)]
DEFAULTS = {"betas": (0.9, 0.999), "alpha": 0.99, "eps": 1e-8, "momentum": 0.0}


def step(theta, grad, state, keep=True, **settings):
    """theta_k, the state if it is kept, and the norm; out of place."""
    options = {**DEFAULTS, **settings}
    out, norm = torch.empty(theta.shape, device=theta.device), torch.empty(theta.shape[0], device=theta.device)
    state_out = [torch.empty(s.shape, device=s.device) for s in state] if keep else []
    gpu.level_step(theta, grad, state, out, state_out, norm, **options)
    return out, *state_out, norm


def definition(theta, grad, *state, **settings):
    theta, state, norm = ref.level_step(theta, grad, list(state), **{**DEFAULTS, **settings})
    return theta, *state, norm


@pytest.mark.parametrize(("shape", "max_grad_norm"), CASES)
@pytest.mark.parametrize("settings", SETTINGS, ids=IDS)
def test_as_exact_as_torch(device, settings, shape, max_grad_norm):
    theta, grad, state = slots(settings, *shape)
    common = {**settings, "lr": 2e-3, "step": 3, "max_grad_norm": max_grad_norm}
    theta_d, grad_d, *state_d = move(device, theta, grad, *state)
    ours = twice(step, theta_d, grad_d, state_d, **common)
    hold(["theta_k", *map(str, range(len(state))), "norm"], ours, definition, (theta, grad, *state), **common)
    lookahead = twice(step, theta_d, grad_d, state_d, keep=False, **common)
    assert torch.equal(lookahead[0], ours[0])
    assert torch.equal(lookahead[-1], ours[-1])


@pytest.mark.parametrize("settings", SETTINGS, ids=IDS)
def test_a_step_in_place_gives_the_same_numbers(device, settings):
    theta, grad, *state = move(device, *(slots(settings, 2, 2100)[:2]), *slots(settings, 2, 2100)[2])
    common = {**settings, "lr": 2e-3, "step": 3, "max_grad_norm": 1.0}
    apart = step(theta, grad, state, **common)
    norm = torch.empty(2, device=device)
    gpu.level_step(theta, grad, state, theta, state, norm, **{**DEFAULTS, **common})
    assert all(torch.equal(a, b) for a, b in zip(apart, (theta, *state, norm), strict=True))


def test_a_gradient_that_is_not_a_number_stays_in_its_set(device):
    theta, grad = move(device, torch.zeros(2, 100), torch.ones(2, 100))
    grad[0, 50] = float("nan")
    out, norm = step(theta, grad, [], optimizer="sgd", lr=1.0, step=1, max_grad_norm=0.5)
    assert norm.isnan().tolist() == [True, False]
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


def test_the_rate_may_lie_on_the_device(device):
    theta, grad, state = slots(SETTINGS[0], 2, 33)
    theta, grad, *state = move(device, theta, grad, *state)
    common = {**SETTINGS[0], "lr": 2e-3, "step": 3, "max_grad_norm": 1.0}
    plain = step(theta, grad, state, **common)
    sizes = torch.tensor(gpu.step_sizes("adam", 2e-3, (0.9, 0.999), 3), device=device)
    read = step(theta, grad, state, **{**common, "lr": float("nan")}, rates=sizes)
    assert all(torch.equal(a, b) for a, b in zip(plain, read, strict=True))


def test_float64_is_the_definition(device):
    theta, grad, state = slots(SETTINGS[0], 2, 33, torch.float64)
    common = {**SETTINGS[0], "lr": 2e-3, "step": 3, "max_grad_norm": 1.0}
    exact = definition(theta, grad, *state, **common)
    theta, grad, *state = move(device, theta, grad, *state)
    out, norm = torch.zeros_like(theta), torch.zeros(2, device=device, dtype=torch.float64)
    state_out = [torch.zeros_like(s) for s in state]
    gpu.level_step(theta, grad, state, out, state_out, norm, **{**DEFAULTS, **common})
    for ours, truth in zip((out, *state_out, norm), exact, strict=True):
        torch.testing.assert_close(ours.cpu(), truth, rtol=1e-14, atol=0)


def test_rmsprops_correction_is_a_factor_of_its_root(device):
    """lr sqrt(c) g / (sqrt(v) + eps sqrt(c)), which the CPU takes, with c read from the device as 1 / sqrt(c)."""
    theta, grad, state = slots(SETTINGS[1], 2, 33)
    common = {**SETTINGS[1], "step": 3, "max_grad_norm": 1.0}
    root = (1 - 0.99**3) ** 0.5
    expected = definition(
        *(t.double() for t in (theta, grad, *state)), **{**common, "lr": 2e-3 * root, "eps": common["eps"] * root}
    )
    theta_d, grad_d, *state_d = move(device, theta, grad, *state)
    rates = torch.tensor([2e-3, 1 / root], device=device)
    ours = step(theta_d, grad_d, state_d, **common, lr=float("nan"), rates=rates)
    for got, truth in zip(ours, expected, strict=True):
        torch.testing.assert_close(got.cpu().double(), truth, rtol=1e-6, atol=1e-7)
