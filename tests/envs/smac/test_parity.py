"""The comparison that ``doctor --smac-parity`` runs on a real game, here on the stand-in."""

from importlib.util import find_spec

import numpy as np
import pytest

from kpg_fast.envs.smac import compare_clients, parity

_MISSING = [name for name in ("smac", "smacv2") if find_spec(name) is None or find_spec(f"{name}.env") is None]
needs_libraries = pytest.mark.skipif(
    bool(_MISSING), reason=f"not installed: {' and '.join(_MISSING)} (github.com/oxwhirl)"
)


@needs_libraries
def test_the_clients_agree(game):
    found = list(compare_clients(["MMM", "10gen_protoss_5v5", "10gen_zerg_5v5_epo"], episodes=1))
    assert [ok for _, ok, _ in found] == [True] * 3, found
    assert all("on stand-in 4.10.0" in detail for _, _, detail in found)


@needs_libraries
def test_a_difference_is_found_and_named(game):
    """Without smacv2's blanked rows our client is another one."""
    ((name, ok, detail),) = compare_clients(["10gen_terran_5v5"], episodes=2, blank_enemies=False)
    assert (name, ok) == ("10gen_terran_5v5", False)
    assert "obs[0, " in detail


def test_every_array_is_compared():
    from kpg_fast.envs import StepArrays
    from kpg_fast.envs.smac import _spec
    from kpg_fast.envs.smac.layout import Layout
    from kpg_fast.envs.smac.scenarios import find

    spec = _spec(Layout.build(find("3m"), {}, False, True, native=True), 1)
    for name in vars(StepArrays.empty(spec)):
        one, two = StepArrays.empty(spec), StepArrays.empty(spec)
        one.terminated[:] = two.terminated[:] = True
        assert parity._difference(one, two) == ""
        array = getattr(two, name)
        array[...] = ~array if array.dtype == np.bool_ else array + 1
        assert parity._difference(one, two).startswith(name)
