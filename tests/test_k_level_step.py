"""k_level_step against the plain loop: a deep copy of modules and optimisers a level, the last one kept."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from kpg_fast.errors import UsageError
from kpg_fast.k_level_step import k_level_step
from tests.naive_k_level_step import (
    OBS,
    Actor,
    N,
    actors_and_optimizers,
    batch,
    functions,
    naive_k_level_step,
)


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small are ten times slower where a second thread spins for work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_equal(found, expected):
    """Parameters, buffers and optimiser state of both, to 1e-12."""
    (modules, optimizers), (other_modules, other_optimizers) = found, expected
    for module, other in zip(modules, other_modules, strict=True):
        for (name, value), truth in zip(module.state_dict().items(), other.state_dict().values(), strict=True):
            torch.testing.assert_close(value, truth, rtol=0, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")
    for optimizer, other in zip(optimizers, other_optimizers, strict=True):
        state, truth = optimizer.state_dict(), other.state_dict()
        assert state["param_groups"] == truth["param_groups"]
        assert state["state"].keys() == truth["state"].keys()
        for index, entry in truth["state"].items():
            assert state["state"][index].keys() == entry.keys()
            for key, value in entry.items():
                torch.testing.assert_close(state["state"][index][key], value, rtol=0, atol=1e-12)


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam-amsgrad-foreach": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True, foreach=True),
    "adam-fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "adam-tensor-lr": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "rmsprop-centered": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.9, foreach=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd-nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "sgd-fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, lr_decay=0.1),
    "adagrad-fused": lambda p: torch.optim.Adagrad(p, lr=0.1, fused=True),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1.0),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.1, t0=2),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "muon": lambda p: torch.optim.Muon([q for q in p if q.dim() == 2], lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_of_torch_is_restored_exactly(name):
    modules, optimizers = actors_and_optimizers(False, OPTIMIZERS[name])
    expected = copy.deepcopy((modules, optimizers))
    for update in range(4):  # the first one creates the state, which must vanish again
        loss, anticipate = functions(update, N)
        k_level_step(modules, optimizers, loss, anticipate, 3)
        expected = naive_k_level_step(*expected, loss, anticipate, 3)
        assert_equal((modules, optimizers), expected)


@pytest.mark.parametrize("level1_others", ["base", "current"])
@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("actors", ["shared", "separate", "separate, one optimiser"])
def test_equal_to_the_naive_loop(actors, levels, level1_others):
    modules, optimizers = actors_and_optimizers(
        actors == "shared", OPTIMIZERS["adam"], one_optimizer=actors == "separate, one optimiser", norm=True
    )
    expected = copy.deepcopy((modules, optimizers))
    for update in range(3):
        loss, anticipate = functions(update, len(modules))
        losses = k_level_step(modules, optimizers, loss, anticipate, levels, level1_others=level1_others)
        expected = naive_k_level_step(*expected, loss, anticipate, levels, level1_others)
        assert_equal((modules, optimizers), expected)
        assert len(losses) == levels
        assert not any(value.requires_grad for value in losses)


def test_levels_matter_and_level_one_is_the_base_algorithm():
    results = []
    for levels in (1, 2, 3):
        modules, optimizers = actors_and_optimizers(False, OPTIMIZERS["sgd"])
        loss, anticipate = functions(0, N)
        if levels == 1:
            base, base_optimizers = copy.deepcopy((modules, optimizers))
            loss(base, None, 1).backward()
            for optimizer in base_optimizers:
                optimizer.step()
        k_level_step(modules, optimizers, loss, anticipate, levels)
        results.append(torch.cat([p.detach().flatten() for m in modules for p in m.parameters()]))
    assert torch.equal(results[0], torch.cat([p.detach().flatten() for m in base for p in m.parameters()]))
    assert (results[1] - results[0]).abs().max() > 1e-6
    assert (results[2] - results[1]).abs().max() > 1e-9


def test_a_scalar_a_module_ignores_what_it_does_to_the_others():
    """L_i that evaluates the others' modules itself must give grad_i L_i alone."""
    modules, optimizers = actors_and_optimizers(False, OPTIMIZERS["sgd"])
    expected, expected_optimizers = copy.deepcopy((modules, optimizers))
    obs = batch(0)[0]

    def losses(own_modules, others, k):
        logits = [module(obs[i]) for i, module in enumerate(own_modules)]
        joint = logits[0] * logits[1] * logits[2]
        return [(joint * (i + 1)).mean() for i in range(N)]

    for i in range(N):
        trial = copy.deepcopy(expected)
        losses(trial, None, 1)[i].backward()
        for p, q in zip(expected[i].parameters(), trial[i].parameters(), strict=True):
            p.grad = q.grad
    for optimizer in expected_optimizers:
        optimizer.step()
    (total,) = k_level_step(modules, optimizers, losses, lambda modules: None, 1)
    assert_equal((modules, optimizers), (expected, expected_optimizers))
    assert total.shape == ()


def test_gradients_frozen_parameters_and_strangers_are_left_alone():
    modules, optimizers = actors_and_optimizers(False, OPTIMIZERS["adamw"], frozen=True)
    critic = nn.Linear(OBS, 1).double()
    critic.weight.grad = torch.ones_like(critic.weight)
    frozen = [module.body.weight.clone() for module in modules]
    obs = batch(0)[0]
    surrogate, anticipate = functions(0, N)

    def loss(own_modules, others, k):
        return surrogate(own_modules, others, k) + critic(obs).square().mean()

    modules[0].head.weight.grad = torch.full_like(modules[0].head.weight, 1e6)  # left over from elsewhere
    k_level_step(modules, optimizers, loss, anticipate, 2)
    assert all(p.grad is None for module in modules for p in module.parameters())
    assert torch.equal(critic.weight.grad, torch.ones_like(critic.weight))
    assert critic.bias.grad is None
    assert all(torch.equal(m.body.weight, before) for m, before in zip(modules, frozen, strict=True))
    assert float(modules[0].head.weight.detach().abs().max()) < 1


def test_what_is_anticipated_may_be_a_parameter_itself():
    """In a toy game an action is a parameter; it must not follow the parameter back to level 0."""

    def run(view):
        x = nn.ParameterList([torch.tensor([float(i)]) for i in range(2)])
        optimizer = torch.optim.SGD(x.parameters(), lr=0.5)

        def loss(own, others, k):
            others = [torch.tensor([float(i)]) for i in range(2)] if others is None else others["x"]
            return 0.5 * ((own[0] - others[1]) ** 2 + (own[1] - others[0]) ** 2).sum()

        k_level_step(x, optimizer, loss, lambda own: {"x": [view(own[0]), view(own[1])]}, 2)
        return [p.item() for p in x]

    # level 1: both move to 0.5; level 2: each moves half way to where the other will be
    assert run(lambda p: p) == run(lambda p: p[:1]) == run(lambda p: p.clone()) == [0.25, 0.75]


def test_the_same_noise_at_every_level_and_for_the_base_algorithm():
    modules, optimizers = actors_and_optimizers(False, OPTIMIZERS["adam"], dropout=0.5)
    seen = []
    loss, anticipate = functions(0, N)

    def noisy_loss(own_modules, others, k):
        seen.append(torch.rand(3))
        return loss(own_modules, others, k)

    def noisy_anticipate(modules):
        seen.append(torch.rand(3))
        return anticipate(modules)

    torch.manual_seed(5)
    noise = torch.rand(3)
    torch.manual_seed(5)
    k_level_step(modules, optimizers, noisy_loss, noisy_anticipate, 3)
    after = torch.rand(1)
    assert len(seen) == 5
    assert all(torch.equal(noise, other) for other in seen)
    torch.manual_seed(5)
    noisy_loss(modules, None, 1)
    assert torch.equal(after, torch.rand(1))


def test_each_module_is_clipped_by_its_own_norm():
    modules, optimizers = actors_and_optimizers(False, OPTIMIZERS["sgd"], one_optimizer=True)
    expected, (expected_optimizer,) = copy.deepcopy((modules, optimizers))
    loss, anticipate = functions(0, N)
    loss(expected, None, 1).backward()
    norms = [float(nn.utils.clip_grad_norm_(module.parameters(), 0.02)) for module in expected]
    assert max(norms) > 0.02
    expected_optimizer.step()
    k_level_step(modules, optimizers, loss, anticipate, 1, max_grad_norm=0.02)
    assert_equal((modules, optimizers), (expected, [expected_optimizer]))


@pytest.mark.parametrize("failing", ["loss", "anticipate"])
def test_when_a_callable_raises_everything_is_as_before(failing):
    modules, optimizers = actors_and_optimizers(False, OPTIMIZERS["adam"], norm=True)
    loss, anticipate = functions(0, N)
    k_level_step(modules, optimizers, loss, anticipate, 1)
    before = copy.deepcopy((modules, optimizers))
    random = torch.get_rng_state()

    def failing_loss(own_modules, others, k):
        torch.rand(1)
        value = loss(own_modules, others, k)
        if failing == "loss" and k == 2:
            raise KeyboardInterrupt
        return value

    def failing_anticipate(modules):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        k_level_step(
            modules, optimizers, failing_loss, failing_anticipate if failing == "anticipate" else anticipate, 3
        )
    assert_equal((modules, optimizers), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for module in modules for p in module.parameters())


class PlainOptimizer(torch.optim.Optimizer):
    """As people write them: a count in Python, a list in the state, a group setting that decays, data replaced."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["count"] = state.get("count", 0) + 1
                history = state.setdefault("history", [])
                history.append(p.grad.clone())
                p.data = p.data - group["lr"] / state["count"] * sum(history)
            group["lr"] *= 0.9


class Counting(Actor):
    """A buffer that is replaced, not written to, and memory that is not in the order of its axes."""

    def __init__(self):
        super().__init__()
        self.head.weight = nn.Parameter(self.head.weight.detach().T.contiguous().T)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, obs):
        self.calls = self.calls + 1
        return super().forward(obs)


def test_optimisers_and_modules_that_are_not_torchs_own():
    torch.manual_seed(0)
    modules = [Counting().double() for _ in range(N)]
    optimizers = [PlainOptimizer(module.parameters()) for module in modules]
    weights = [module.head.weight for module in modules]
    expected = copy.deepcopy((modules, optimizers))
    for update in range(3):
        loss, anticipate = functions(update, N)
        k_level_step(modules, optimizers, loss, anticipate, 3)
        expected = naive_k_level_step(*expected, loss, anticipate, 3)
        for module, other in zip(modules, expected[0], strict=True):
            for name, value in module.state_dict().items():
                torch.testing.assert_close(value, other.state_dict()[name], rtol=0, atol=1e-12)
        assert optimizers[0].state_dict()["param_groups"] == expected[1][0].state_dict()["param_groups"]
        assert [s["count"] for s in optimizers[0].state.values()] == [update + 1] * 4
    assert all(module.head.weight is weight for module, weight in zip(modules, weights, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.complex64])
def test_other_types_of_numbers(dtype):
    x = nn.Parameter(torch.tensor([1.0, 2.0], dtype=dtype))
    optimizer = torch.optim.SGD([x], lr=0.5, momentum=0.9)
    module = nn.ParameterList([x])
    seen = []

    def anticipate(own):
        seen.append(x.detach().clone())
        return None

    for _ in range(2):
        k_level_step(module, optimizer, lambda own, others, k: (own[0] * own[0].conj()).real.sum(), anticipate, 3)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], seen[3])
    assert not torch.equal(seen[1], seen[2])


def test_the_package_exports_the_function_under_the_name_of_its_module():
    import kpg_fast.k_level_step

    assert kpg_fast.k_level_step is k_level_step


def test_wrong_arguments():
    modules, optimizers = actors_and_optimizers(False, OPTIMIZERS["sgd"])
    loss, anticipate = functions(0, N)
    before = copy.deepcopy(modules)

    def fails(message, modules=modules, optimizers=optimizers, loss=loss, levels=2, **options):
        with pytest.raises(UsageError, match=message):
            k_level_step(modules, optimizers, loss, anticipate, levels, **options)

    fails("levels must be an integer of at least 1", levels=0)
    fails("levels must be an integer of at least 1", levels=1.5)
    fails("did you mean current", level1_others="curent")
    fails("modules must be one or more", modules=[])
    fails(r"optimizers must be one or more .* got \['Linear'\]", optimizers=[nn.Linear(1, 1)])
    fails("LBFGS", optimizers=[torch.optim.LBFGS(modules[0].parameters())])
    fails("hold no parameter of the modules", optimizers=[torch.optim.SGD(nn.Linear(1, 1).parameters())])
    fails(r"scalar that depends .* shape \[3\]", loss=lambda own, others, k: own[0].head.bias[:3])
    fails("requires_grad=False", loss=lambda own, others, k: torch.tensor(1.0))
    fails("2 scalars for 3 modules", loss=lambda own, others, k: [own[0].head.bias.sum()] * 2)
    stranger = nn.Linear(1, 1)
    fails("does not depend on any parameter", loss=lambda own, others, k: stranger.bias.sum())
    assert_equal((modules, []), (before, []))


def test_autocast_around_the_call_is_autocast_within_the_functions() -> None:
    """Autocast keeps its casts of the weights until its outermost context ends: those of level 0, at every level."""
    obs, action, old, advantage = (x.float() if x.is_floating_point() else x for x in batch(0))

    def log_prob(modules):
        with torch.autocast("cpu", torch.bfloat16):
            rows = [m(o).gather(1, a[:, None])[:, 0] for m, o, a in zip(modules, obs, action, strict=True)]
        return torch.stack(rows)

    def loss(modules, others, k):
        ratio = (log_prob(modules) - old + (0 if others is None else others.sum(0) - others)).exp()
        return -(ratio * advantage).mean()

    def losses(around: bool):
        modules, optimizers = actors_and_optimizers(False, lambda p: torch.optim.SGD(p, lr=5.0))
        for module in modules:
            module.float()
        with torch.autocast("cpu", torch.bfloat16) if around else nullcontext():
            found = torch.stack(k_level_step(modules, optimizers, loss, log_prob, 3))
        return found, modules[0].body.weight.detach()

    within, around = losses(False), losses(True)
    assert (within[0][1:] - within[0][:-1]).abs().min() > 1e-3
    torch.testing.assert_close(around, within, rtol=0, atol=0)


@pytest.mark.parametrize("values", [{"max_grad_norm": v} for v in (0.0, -1.0, float("nan"), "1")] + [{"levels": True}])
def test_values_that_cannot_be_meant(values) -> None:
    modules, optimizers = actors_and_optimizers(False, torch.optim.Adam)
    before = copy.deepcopy([module.state_dict() for module in modules])
    with pytest.raises(UsageError, match=next(iter(values))):
        k_level_step(modules, optimizers, *functions(0, N), **({"levels": 2} | values))
    for module, state in zip(modules, before, strict=True):
        torch.testing.assert_close(module.state_dict(), state)


def test_levels_of_numpy_are_whole_numbers() -> None:
    modules, optimizers = actors_and_optimizers(False, torch.optim.Adam)
    assert len(k_level_step(modules, optimizers, *functions(0, N), np.int64(2))) == 2
