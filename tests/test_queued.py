"""A whole iteration on a card that is not there: torch's device "meta", whose tensors have shapes and no numbers.

Whatever would make the host wait for the card is an error here: a number read back, a shape that depends on data, a
copy to the card of memory that is not pinned, an operation between tensors of the host and the card. What the kernels
compute is tests/gpu's.
"""

import gc
import weakref
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kpg_fast.config import Config
from kpg_fast.envs import make
from kpg_fast.graphs import cuda_graph
from kpg_fast.k_mappo_trainer import KMappoTrainer
from kpg_fast.place import Place, Sent

CARD = torch.device("meta")
SMALL = {"num_envs": 8, "num_steps": 6, "num_minibatches": 2, "num_epochs": 2, "hidden": 10, "total_steps": 4800}
aten = torch.ops.aten


class Queued(TorchDispatchMode):
    """Refuses operations that a host cannot queue on a card."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        on_card = any(x.device == CARD for x in tensors)
        if on_card and any(x.device != CARD and x.dim() for x in tensors):
            raise AssertionError(f"{func} mixes tensors of the host and the card")
        out = func(*args, **kwargs or {})
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        if tensors and not on_card and any(x.device == CARD for x in made):
            raise AssertionError(f"{func} copies to the card while it works")
        return out


class NothingHappens:
    """An environment on the card whose steps write nothing."""

    def __init__(self, name, num_envs, seeds, card, **options):
        assert card == CARD
        self.spec = make(name, num_envs * len(seeds), **options).spec

    def reset(self, out):
        assert out.obs.device == CARD

    def step(self, action, out):
        assert action.device == out.obs.device == out.last_state.device == CARD


def iterate(monkeypatch, seeds=(0,), **values):
    monkeypatch.setattr("kpg_fast.k_mappo_trainer.make_seeds", NothingHappens)
    config = Config.make("k-mappo", "smax/2s3z", device="cuda", **(SMALL | {"levels": 2} | values))
    trainer = KMappoTrainer(config, seeds=seeds, place=Place(CARD, queued=True))
    monkeypatch.setattr(Sent, "send", lambda self: None)  # pinned memory, which a card reads by itself
    for _ in range(2):
        trainer.schedule.begin(trainer.updates)
        trainer.schedule.shuffle(trainer.generators)
        with Queued():
            trainer._roll_out()
            _, table = trainer._learn()
        assert table.device == CARD
        assert len(table) == len(seeds)


@pytest.mark.parametrize("seeds", [(0,), (3, 5, 8)], ids=["one", "three"])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"precision": "tf32", "shared_actor": False, "levels": 3, "agent_id": True},
        {"recurrent": False, "agent_id": True, "level1_others": "current", "env_options": ("max_steps=2",)},
        {"precision": "mixed-lookahead", "chunk_length": 3, "value_norm": True, "death_mask": True, "mask_dead": True},
        {"precision": "bf16", "lookahead_share": 0.5, "lookahead_window": 3, "optimizer": "rmsprop"},
        {"env_options": ("action_type=continuous",), "input_norm": True, "precision": "mixed-lookahead"},
    ],
    ids=str,
)
def test_nothing_waits_for_the_card(monkeypatch, seeds, values):
    iterate(monkeypatch, seeds, **values)


@pytest.mark.parametrize(
    ("wait", "error"),
    [
        (lambda out: out.reward.sum().item(), "item"),
        (lambda out: out.reward[out.won], "nonzero"),
        (lambda out: out.reward + torch.zeros(8), "mixes"),
        (lambda out: torch.zeros(8).to(CARD), "copies to the card"),
        (lambda out: out.reward.cpu(), "meta"),
    ],
)
def test_waiting_is_seen(monkeypatch, wait, error):
    monkeypatch.setattr(NothingHappens, "step", lambda self, action, out: wait(out))
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError), match=error):
        iterate(monkeypatch)


def test_nothing_that_is_gone_is_given_back_during_a_capture(monkeypatch):
    """A trainer is in cycles; its graphs and pinned memory must not be freed while another's work is captured."""

    class Gone:
        def __init__(self):
            self.itself = self

    gone = []

    @contextmanager
    def capturing(graph):
        gone.append(gone[0]() is None)
        yield

    class Graph:
        def replay(self):
            pass

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    gc.disable()
    try:
        gone.append(weakref.ref(Gone()))
        assert cuda_graph(lambda: 3)[0] == 3
    finally:
        gc.enable()
    assert gone[1]
