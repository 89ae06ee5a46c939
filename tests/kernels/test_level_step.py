import itertools

import pytest
import torch

from kpg_fast import _C
from kpg_fast.errors import UsageError
from kpg_fast.kernels.level_step import level_step, ref, state_names

SETTINGS = [
    {"optimizer": "adam", "betas": (0.9, 0.999), "eps": 1e-5},
    {"optimizer": "rmsprop", "alpha": 0.99, "eps": 1e-5},
    {"optimizer": "rmsprop", "alpha": 0.9, "eps": 1e-8, "momentum": 0.9},
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.5},
]
IDS = ["adam", "rmsprop", "rmsprop-momentum", "sgd", "sgd-momentum"]
SHAPES = [(1, 1), (3, 7), (1, 4096), (2, 4097), (5, 10_007)]


def slots(settings, groups, size, dtype=torch.float32):
    """theta, grad and a state as after some steps; norms of the gradients spread around 1."""
    generator = torch.Generator().manual_seed(groups * 100_003 + size)
    names = state_names(settings["optimizer"], settings.get("momentum", 0.0))
    theta, grad, *state = torch.randn(2 + len(names), groups, size, generator=generator, dtype=torch.float64)
    grad *= torch.linspace(0.5, 2, groups)[:, None] / size**0.5
    first_order = ("exp_avg", "momentum_buffer")
    state = [s * 0.01 if name in first_order else s.square() * 1e-4 for name, s in zip(names, state, strict=True)]
    return theta.to(dtype), grad.to(dtype), [s.to(dtype) for s in state]


def nan_like(tensors):
    return [torch.full_like(tensor, float("nan")) for tensor in tensors]


def ref_step(theta, grad, state, *, optimizer, lr, step, max_grad_norm, **rest):
    defaults = {"betas": (0.9, 0.999), "alpha": 0.99, "eps": 1e-8, "momentum": 0.0} | rest
    return ref.level_step(
        theta, grad, state, optimizer=optimizer, lr=lr, step=step, max_grad_norm=max_grad_norm, **defaults
    )


@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", SETTINGS, ids=IDS)
def test_error_against_float64_is_at_most_twice_that_of_torch_in_float32(settings, shape, max_grad_norm):
    theta, grad, state = slots(settings, *shape)
    common = {**settings, "lr": 2e-3, "step": 3, "max_grad_norm": max_grad_norm}
    exact = ref_step(theta.double(), grad.double(), [s.double() for s in state], **common)
    single = ref_step(theta, grad, state, **common)
    theta_k, *state_k = nan_like([theta, *state])
    norm = level_step(theta, grad, state, theta_k, state_k, **common)

    def numbers(result):
        theta, state, norm = result
        return [theta, *state, norm]

    for ours, torchs, truth in zip(numbers((theta_k, state_k, norm)), numbers(single), numbers(exact), strict=True):
        rounding = torch.finfo(torch.float32).eps * truth.abs().max()
        assert (ours - truth).abs().max() <= 2 * (torchs - truth).abs().max() + rounding


@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
@pytest.mark.parametrize("settings", SETTINGS, ids=IDS)
def test_twenty_steps_equal_torch_optim_in_float64(settings, max_grad_norm):
    theta, _, state = slots(settings, 3, 501, torch.float64)
    state = [torch.zeros_like(s) for s in state]
    classes = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}
    options = {key: value for key, value in settings.items() if key != "optimizer"}
    actors = [torch.nn.Parameter(row.clone()) for row in theta]
    optimizers = [classes[settings["optimizer"]]([actor], lr=1e-2, **options) for actor in actors]
    for step in range(1, 21):
        grad = torch.randn(3, 501, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        level_step(theta, grad, state, theta, state, lr=1e-2, step=step, max_grad_norm=max_grad_norm, **settings)
        for actor, optimizer, g in zip(actors, optimizers, grad, strict=True):
            scale = 1.0 if max_grad_norm is None else min(1.0, max_grad_norm / g.norm().item())
            actor.grad = g * scale
            optimizer.step()
    torch.testing.assert_close(theta, torch.stack([a.detach() for a in actors]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settings", SETTINGS, ids=IDS)
def test_place_threads_and_instruction_set_change_no_bit(settings, dtype):
    theta, grad, state = slots(settings, 3, 10_007, dtype)
    common = {**settings, "lr": 2e-3, "step": 3, "max_grad_norm": 1.0}
    lookahead, committed = nan_like([theta])[0], theta.clone()
    state_k, committed_state = nan_like(state), [s.clone() for s in state]
    before = [t.clone() for t in (theta, grad, *state)]
    norm = level_step(theta, grad, state, lookahead, **common)
    assert all(torch.equal(a, b) for a, b in zip(before, (theta, grad, *state), strict=True))
    level_step(committed, grad, committed_state, committed, committed_state, **common)
    assert torch.equal(lookahead, committed)

    defaults = {"betas": (0.9, 0.999), "alpha": 0.99, "eps": 1e-8, "momentum": 0.0} | common
    for threads, baseline in itertools.product((1, 2, 5), (False, True)):
        out, *state_k = nan_like([theta, *state])
        other_norm = torch.full_like(norm, float("nan"))
        _C.level_step(
            *(theta.numpy(), grad.numpy(), [s.numpy() for s in state]),
            *(out.numpy(), [s.numpy() for s in state_k], other_norm.numpy()),
            **defaults,
            num_threads=threads,
            baseline=baseline,
        )
        assert torch.equal(out, lookahead)
        assert torch.equal(other_norm, norm)
        assert all(torch.equal(a, b) for a, b in zip(state_k, committed_state, strict=True))


def test_each_parameter_set_is_clipped_by_its_own_norm():
    theta, grad = torch.zeros(3, 5000), torch.randn(3, 5000)
    grad *= torch.tensor([0.25, 1.0, 40.0])[:, None] / grad.norm(dim=1, keepdim=True)
    out = torch.empty_like(theta)
    norm = level_step(theta, grad, [], out, optimizer="sgd", lr=1.0, max_grad_norm=0.5)
    torch.testing.assert_close(norm, torch.tensor([0.25, 1.0, 40.0]))
    torch.testing.assert_close(out.norm(dim=1), torch.tensor([0.25, 0.5, 0.5]))
    assert torch.equal(out[0], -grad[0])


def test_a_gradient_that_is_not_a_number_is_not_hidden_and_stays_in_its_set():
    theta, grad = torch.zeros(2, 100), torch.ones(2, 100)
    grad[0, 50] = float("nan")
    out = torch.empty_like(theta)
    norm = level_step(theta, grad, [], out, optimizer="sgd", lr=1.0, max_grad_norm=0.5)
    assert norm.isnan().tolist() == [True, False]
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


def test_the_op_is_registered_as_torch_expects():
    theta, grad, state = slots(SETTINGS[0], 2, 33)
    theta_k, *state_k = (torch.zeros_like(t) for t in (theta, *state))
    arguments = (theta, grad, state, theta_k, state_k, torch.zeros(2))
    numbers = ("adam", 1e-3, [0.9, 0.999], 0.99, 1e-5, 0.0, 0.5, 1, None)
    torch.library.opcheck(
        torch.ops.kpg_fast.level_step.default, (*arguments, *numbers), test_utils=("test_schema", "test_faketensor")
    )


def test_what_does_not_fit_is_refused():
    theta, grad, state = slots(SETTINGS[0], 2, 33)
    out, room = torch.empty_like(theta), torch.zeros(3, 33)
    adam = {"optimizer": "adam", "lr": 1e-3}
    with pytest.raises(UsageError, match="unknown optimizer 'adm'; did you mean adam"):
        level_step(theta, grad, state, out, optimizer="adm", lr=1e-3)
    with pytest.raises(ValueError, match="adam has 2 state slots; got 1 in"):
        level_step(theta, grad, state[:1], out, **adam)
    with pytest.raises(ValueError, match=r"grad must be like theta, float32 \[2, 33\]; got float32 \[2, 32\]"):
        level_step(theta, grad[:, 1:], state, out, **adam)
    with pytest.raises(ValueError, match="grad must be like theta, float32"):
        level_step(theta, grad.double(), state, out, **adam)
    with pytest.raises(ValueError, match="theta_out must be C-contiguous"):
        level_step(theta, grad, state, torch.empty(33, 2).T, **adam)
    with pytest.raises(ValueError, match="an input and an output overlap in part"):
        level_step(room[:2], grad, state, room[1:], **adam)
    with pytest.raises(ValueError, match="state_out is an output twice"):
        level_step(theta, grad, state, out, [state[0], state[0]], **adam)
    with pytest.raises(ValueError, match="step counts from 1; got 0"):
        level_step(theta, grad, state, out, step=0, **adam)
    with pytest.raises(ValueError, match="max_grad_norm must be positive"):
        level_step(theta, grad, state, out, max_grad_norm=0.0, **adam)
    with pytest.raises(ValueError, match=r"theta must be \[G, P\]"):
        level_step(theta[0], grad[0], [s[0] for s in state], out[0], **adam)
    with pytest.raises(ValueError, match="float32 or float64; got int64"):
        level_step(*(t.long() for t in (theta, grad)), [], out.long(), optimizer="sgd", lr=1.0)
