"""What a CUDA graph does, on the CPU: the operations of one call, done again and again on the same memory.

Python does not run again, so whatever it decided when the work was captured stays as it was: the error to look for.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

_recorders = []


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.steps = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        self.steps.append((func, args, kwargs or {}, [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]))
        return out

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, outs in self.steps:
            now = func(*args, **kwargs)
            for old, new in zip(outs, [x for x in tree_leaves(now) if isinstance(x, torch.Tensor)], strict=True):
                if new is not old and new.untyped_storage().data_ptr() != old.untyped_storage().data_ptr():
                    old.copy_(new)


def capture(work):
    """As :func:`kpg_fast.graphs.cuda_graph`. Work is done while it is recorded, so its first replay does nothing."""
    recorder = Recorder()
    _recorders.append(recorder)
    with recorder:
        result = work()
    _recorders.pop()
    calls = []

    def replay():
        if calls:
            recorder.replay()
        calls.append(None)

    return result, replay


def outside(function):
    """A function that computes by other means than torch's operations, recorded as a whole."""

    def recorded(*args):
        if not _recorders:
            return function(*args)
        with _disable_current_modes():
            out = function(*args)
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        _recorders[-1].steps.append((function, args, {}, made))
        return out

    return recorded
