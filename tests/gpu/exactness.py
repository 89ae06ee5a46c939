"""Every kernel is held to float64 of its definition and to itself."""

import os

import torch

from tests.kernels.oracle import as_exact_as_torch, doubled

# Times torch's error in float32: a card's exponential and division are right to two units in the last place, those of
# the CPU, which the interpreter and the comparison use, to half a unit.
TIMES = 2 if os.environ.get("TRITON_INTERPRET") == "1" else 6


def move(device, *values):
    """Tensors on the device, other values as they are."""
    return tuple(v.to(device) if isinstance(v, torch.Tensor) else v for v in values)


def twice(f, *inputs, equal_nan=False, **options):
    """f's results, as a list on the CPU; two runs have to agree bit for bit."""
    first, again = (results(f(*inputs, **options)) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=equal_nan, msg="two runs differ")
    return first


def results(value):
    values = [value] if isinstance(value, torch.Tensor) else list(value)
    return [v.cpu() for v in values]


def hold(names, ours, definition, inputs, terms=None, **options):
    """Errors against ``definition`` in float64 are at most ``TIMES`` those of ``definition`` in float32.

    ``terms`` says how large the terms of a mean are: where they cancel, a lucky error of torch's is no measure.
    """
    single = results(definition(*inputs, **options))
    exact = results(definition(*doubled_or_none(inputs), **options))
    for name, got, by_torch, truth in zip(names, ours, single, exact, strict=True):
        if terms and not truth.dim():
            got, by_torch, truth = (torch.stack([v, v.new_tensor(terms)]) for v in (got, by_torch, truth))
        as_exact_as_torch(got, by_torch, truth, name, TIMES)


def doubled_or_none(values):
    return tuple(v if not isinstance(v, torch.Tensor) else doubled(v)[0] for v in values)
