"""The mixer against its definition in float64: error at most twice that of the definition in float32."""

import pytest
import torch

from kpg_fast.errors import UsageError
from kpg_fast.kernels import mixer
from kpg_fast.kernels.mixer import ref

SHAPES = [(1, 1, 1), (2, 100, 64), (3, 7, 5), (6, 129, 32), (27, 3, 17)]


def inputs(n, r, m, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n, r), (r, n, m), (r, m), (r, m), (r,)]
    return [scale * torch.randn(shape, generator=generator) for shape in shapes]


def assert_as_good_as_float32(got, in_float32, exact, name):
    scale = exact.abs().max() * torch.finfo(torch.float32).eps
    allowed = 2 * (in_float32.double() - exact).abs().max() + scale
    error = (got.double() - exact).abs().max()
    assert error <= allowed, f"{name}: {error} > {allowed}"


def plain_one_live(q_own, q_others, w1, b1, w2, v, monotonic):
    """Row i mixed on its own, from the formula."""
    rows = []
    for i in range(len(q_own)):
        q = q_others.clone()
        q[i] = q_own[i]
        rows.append(ref.mix(q, w1, b1, w2, v, monotonic))
    return torch.stack(rows)


@pytest.mark.parametrize("monotonic", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_mix_and_its_gradients(shape, monotonic):
    values = inputs(*shape)
    dq_tot = torch.randn(shape[1], generator=torch.Generator().manual_seed(1))
    results = []
    for of_dtype, mix in ((torch.float32, mixer.mix), (torch.float32, ref.mix), (torch.float64, ref.mix)):
        leaves = [value.to(of_dtype).requires_grad_() for value in values]
        q_tot = mix(*leaves, monotonic)
        results.append([q_tot.detach(), *torch.autograd.grad(q_tot, leaves, dq_tot.to(of_dtype))])
    for name, got, in_float32, exact in zip(("q_tot", "q", "w1", "b1", "w2", "v"), *results, strict=True):
        assert_as_good_as_float32(got, in_float32, exact, name)


@pytest.mark.parametrize("monotonic", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_live_agent_at_a_time(shape, monotonic):
    q_own, *rest = inputs(*shape)
    q_others = q_own + 0.3 * torch.randn(q_own.shape, generator=torch.Generator().manual_seed(2))
    got = mixer.mix_one_live(q_own, q_others, *rest, monotonic)
    in_float32 = ref.mix_one_live(q_own, q_others, *rest, monotonic)
    doubles = [a.double() for a in (q_own, q_others, *rest)]
    exact = ref.mix_one_live(*doubles, monotonic)
    torch.testing.assert_close(exact[0], plain_one_live(*doubles, monotonic), rtol=1e-13, atol=1e-13)
    for name, *results in zip(("q_tot", "slope"), got, in_float32, exact, strict=True):
        assert_as_good_as_float32(*results, name)


@pytest.mark.parametrize("function", ["mix", "mix_backward"])
def test_definition_is_differentiated_rightly(function):
    values = [a.double().requires_grad_() for a in inputs(3, 4, 5)]
    if function == "mix":
        assert torch.autograd.gradcheck(lambda *a: ref.mix(*a, True), values)
    else:
        dq_tot = torch.randn(4, dtype=torch.float64)
        got = ref.mix_backward(dq_tot, *values[:4], True)
        expected = torch.autograd.grad(ref.mix(*values, True), values[:4], dq_tot)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


def test_slopes_of_the_monotonic_mixer_are_never_negative():
    q, *rest = inputs(5, 500, 32, scale=5.0)
    _, slope = mixer.mix_one_live(q, q, *rest)
    assert (slope >= 0).all()
    more = q.clone()
    more[2] += 1
    assert (mixer.mix(more, *rest) >= mixer.mix(q, *rest) - 1e-4).all()
    _, slope = mixer.mix_one_live(q, q, *rest, monotonic=False)
    assert (slope < 0).any()


def test_extreme_inputs():
    """Hidden units far below zero have no slope, never NaN; a NaN among the inputs does not hide."""
    q, w1, b1, w2, v = inputs(2, 3, 4)
    b1[0], b1[1] = -1e4, 1e4
    exact = ref.mix(*(a.double() for a in (q, w1, b1, w2, v)), True)
    torch.testing.assert_close(mixer.mix(q, w1, b1, w2, v).double(), exact, rtol=1e-6, atol=1e-6)
    _, slope = mixer.mix_one_live(q, q, w1, b1, w2, v)
    assert (slope[:, 0] < 1e-30).all()
    b1[2, 1] = torch.nan
    assert mixer.mix(q, w1, b1, w2, v)[2].isnan()
    assert not mixer.mix(q, w1, b1, w2, v)[:2].isnan().any()


def test_every_output_is_written_and_twice_the_same():
    values = inputs(3, 33, 9)
    dq_tot = torch.ones(33)
    first = [mixer.mix(*values), *mixer.mix_backward(dq_tot, *values[:4]), *mixer.mix_one_live(values[0], *values)]
    torch.set_num_threads(1)
    try:
        again = [mixer.mix(*values), *mixer.mix_backward(dq_tot, *values[:4]), *mixer.mix_one_live(values[0], *values)]
    finally:
        torch.set_num_threads(2)
    for a, b in zip(first, again, strict=True):
        assert torch.isfinite(a).all()
        assert torch.equal(a, b)


def test_strided_inputs_are_read_as_they_are():
    q, *rest = inputs(3, 8, 4)
    assert torch.equal(mixer.mix(q.T.contiguous().T, *rest), mixer.mix(q, *rest))


def test_fake_tensors_have_the_right_shapes():
    values = inputs(3, 33, 9)
    torch.library.opcheck(torch.ops.kpg_fast.mix, (*values, True), test_utils=("test_schema", "test_faketensor"))
    backward = (torch.ones(33), *values[:4], True)
    torch.library.opcheck(torch.ops.kpg_fast.mix_backward, backward, test_utils=("test_schema", "test_faketensor"))


def test_shapes_that_do_not_fit_are_refused():
    q, w1, b1, w2, v = inputs(3, 8, 4)
    with pytest.raises(UsageError, match="w1 must be"):
        mixer.mix(q, w1.transpose(0, 1), b1, w2, v)
    with pytest.raises(UsageError, match="q_others"):
        mixer.mix_one_live(q, q[:, :4], w1, b1, w2, v)
