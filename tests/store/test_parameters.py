import pytest
import torch

from kpg_fast.errors import UsageError
from kpg_fast.store.parameters import Layout, ParameterStore

SHAPES = {"fc.weight": (3, 5), "fc.bias": (5,), "log_std": ()}


def test_layout_aligns_every_array_and_covers_all():
    layout = Layout(SHAPES)
    assert layout.offsets == {"fc.weight": 0, "fc.bias": 16, "log_std": 32}
    assert layout.size == 48
    assert layout.num_parameters == 21


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slots_and_views_are_the_same_memory_and_slots_do_not_touch(dtype):
    store = ParameterStore(Layout(SHAPES), 2, ["theta", "grad", "target"], dtype)
    for value, name in enumerate(store.slots, start=1):
        assert store.slot(name).shape == (2, 48)
        assert store.slot(name).dtype == dtype
        assert store.slot(name).data_ptr() % 64 == 0
        assert not store.slot(name).any()
        for view in store.views(name).values():
            view.fill_(value)
    for value, name in enumerate(store.slots, start=1):
        views = store.views(name)
        assert {key: tuple(view.shape) for key, view in views.items()} == {
            key: (2, *shape) for key, shape in SHAPES.items()
        }
        assert store.slot(name).sum() == value * 2 * 21
        assert all(bool((view == value).all()) for view in views.values())


def test_copy_polyak_and_checksum_work_on_whole_slots():
    store = ParameterStore(Layout(SHAPES), 2, ["theta", "target"])
    store.slot("theta").normal_()
    assert store.checksum("theta") != store.checksum("target")
    store.polyak("theta", "target", 0.25)
    torch.testing.assert_close(store.slot("target"), 0.25 * store.slot("theta"))
    store.copy("theta", "target")
    assert torch.equal(store.slot("theta"), store.slot("target"))
    assert store.checksum("theta") == store.checksum("target")
    store.views("target")["fc.bias"][1, 4] += 1
    assert store.checksum("theta") != store.checksum("target")


def test_writing_one_slot_does_not_void_another_slots_graph():
    store = ParameterStore(Layout(SHAPES), 1, ["theta", "level"])
    leaf = store.views("theta")["fc.bias"].detach().requires_grad_()
    loss = leaf.square().sum()
    store.slot("level").fill_(1)
    loss.backward()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, 1, ["theta"]), "at least one array"),
        (({"w": (0, 3)}, 1, ["theta"]), "w: shape"),
        ((SHAPES, 0, ["theta"]), "groups=0"),
        ((SHAPES, 1, []), "got none"),
        ((SHAPES, 1, ["theta", "theta"]), "different names"),
        ((SHAPES, 1, ["theta"], torch.bfloat16), "float32 or float64; got torch.bfloat16"),
    ],
)
def test_wrong_arguments(arguments, message):
    shapes, *rest = arguments
    with pytest.raises(UsageError, match=message):
        ParameterStore(Layout(shapes), *rest)


def test_an_unknown_slot_names_the_nearest():
    store = ParameterStore(Layout(SHAPES), 1, ["theta", "target"])
    for method in (store.slot, store.views, store.checksum):
        with pytest.raises(UsageError, match="did you mean theta"):
            method("teta")
