import pytest
import torch

from kpg_fast.kernels.level_step import level_step, state_names
from kpg_fast.store.drift import DriftCheck, DriftError
from kpg_fast.store.parameters import Layout, ParameterStore

STEP = {"lr": 1e-4, "betas": (0.9, 0.999), "alpha": 0.99, "eps": 1e-5, "momentum": 0.0, "max_grad_norm": 0.5}


def watched_store(optimizer, dtype=torch.float32):
    state = state_names(optimizer)
    store = ParameterStore(Layout({"w": (20, 30), "b": (30,)}), 2, ["theta", *state, "odd", "even", "grad"], dtype)
    store.slot("theta").normal_()
    for slot in state:
        store.slot(slot).uniform_(0, 1e-3)
    return store, state


def run_update(store, state, optimizer, start="theta", in_place_at=None, commit_twice=False, levels=3):
    """A K-level update under the check; the arguments plant one bug each."""
    check = DriftCheck(store, state)
    settings = {**STEP, "optimizer": optimizer, "step": 5}
    check.begin()
    moments = [store.slot(slot) for slot in state]
    for k in range(1, levels + 1):
        slot = "odd" if k % 2 else "even"
        previous = start if k == 1 or start == "theta" else ("even" if k % 2 else "odd")
        store.slot("grad").normal_()
        level_step(store.slot(previous), store.slot("grad"), moments, store.slot(slot), **settings)
        if k == in_place_at:
            store.slot(state[-1])[1, 17] *= 1.0001
        check.after_level(k, slot, **settings)
    for _ in range(2 if commit_twice else 1):
        level_step(store.slot("theta"), store.slot("grad"), moments, store.slot("theta"), moments, **settings)
    check.after_commit()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_a_right_update_passes_many_times(optimizer, dtype):
    store, state = watched_store(optimizer, dtype)
    for _ in range(20):
        run_update(store, state, optimizer)


def test_levels_that_accumulate_are_caught_at_the_second():
    store, state = watched_store("adam")
    store.copy("theta", "even")
    with pytest.raises(DriftError, match=r"theta\^\(2\) is not one optimiser step from where it started: number \d+"):
        run_update(store, state, "adam", start="even")


def test_a_level_that_touches_the_optimisers_state_is_caught():
    store, state = watched_store("adam")
    with pytest.raises(DriftError, match="level 2 changed slot exp_avg_sq"):
        run_update(store, state, "adam", in_place_at=2)


def test_two_committed_steps_are_caught():
    store, state = watched_store("rmsprop")
    with pytest.raises(DriftError, match="slot theta after the commit is not one optimiser step"):
        run_update(store, state, "rmsprop", commit_twice=True)


def test_a_gradient_that_is_not_a_number_is_no_drift():
    store, state = watched_store("sgd")
    check = DriftCheck(store, state)
    settings = {**STEP, "optimizer": "sgd", "step": 1}
    check.begin()
    store.slot("grad").fill_(float("nan"))
    level_step(store.slot("theta"), store.slot("grad"), [], store.slot("odd"), **settings)
    check.after_level(1, "odd", **settings)
