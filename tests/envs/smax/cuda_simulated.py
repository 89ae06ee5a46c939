"""Plays SMAX with the CUDA driver under numba-cuda's simulator; test_cuda.py starts it in a process of its own.

``python -m tests.envs.smax.cuda_simulated PLAYED TRACE:STEPS:GAMES ...`` writes :func:`play` to the file PLAYED, takes
of each trace the steps around the first end of an episode and prints the largest errors as JSON. Every rule runs as
plain Python, so a step takes a while.
"""

import json
import sys

import numpy as np
import torch

from kpg_fast.envs import StepArrays, make, make_seeds
from kpg_fast.envs.smax import cuda, env
from tests.envs.smax.replay import load, replay, states_before


def around_an_end(trace, steps, games):
    """A short trace out of a long one: so many steps of its first games, up to two after an episode has ended."""
    end = int(trace["done"][:, :games].any(1).argmax())
    first = max(0, end + 2 - steps)
    every = int(trace["every"])
    first -= first % every
    states = list(states_before(trace))[first : first + steps]
    length = len(trace["fresh"])
    part = {key: value for key, value in trace.items() if not key.startswith("start_")}
    for key, value in part.items():
        if value.ndim >= 2:
            rows = slice(first, first + steps) if len(value) == length else slice(first // every, None)
            part[key] = value[rows, :games]
    part["fresh"] = part["fresh"].copy()
    part["fresh"][0] = True
    starts = [(t, e) for t, e in zip(*part["fresh"].nonzero(), strict=True)]
    names = [key for key in trace if key.startswith("start_")]
    return part | {key: np.stack([states[t][key.removeprefix("start_")][e] for t, e in starts]) for key in names}


def play(name, steps=3, **options):
    """Some steps of two games from drawn starts, with drawn actions: what a seed makes of them."""
    engine = make(name, 2, seed=2**40 + 7, max_steps=2, **options)
    rng, out, seen = np.random.default_rng(0), StepArrays.empty(engine.spec), []
    engine.reset(out)
    for _ in range(steps):
        seen.append({name: value.copy() for name, value in {**vars(out), **engine.get_state()}.items()})
        draws = rng.random((*out.avail_actions.shape[:2], engine.spec.num_actions), np.float32)
        drawn = draws if engine.spec.continuous else (draws * out.avail_actions).argmax(-1).astype(np.int32)
        engine.step(drawn, out)
    seen.append({name: value.copy() for name, value in {**vars(out), **engine.get_state()}.items()})
    return {name: np.stack([now[name] for now in seen]) for name in seen[0]}


def play_seeds(card, steps=3):
    """Some steps of two seeds with two games each, side by side: on ``card``, or on the CPU if it is None."""
    engine = make_seeds("smax/3m", 2, (5, 2**40 + 7), card, max_steps=2)
    rng, out, seen = np.random.default_rng(0), StepArrays.empty(engine.spec), []
    engine.reset(out)
    for _ in range(steps):
        action = rng.integers(0, engine.spec.num_actions, out.alive.shape, np.int32)
        engine.step(action, out)
        seen.append({name: value.copy() for name, value in vars(out).items()})
    states = {f"{i}/{name}": x for i, part in enumerate(engine.parts) for name, x in part.state_dict().items()}
    fresh = make_seeds("smax/3m", 2, (1, 2), card, max_steps=2)
    for part, old in zip(fresh.parts, engine.parts, strict=True):
        part.load_state_dict(old.state_dict())
    for each in (engine, fresh):
        each.step(action, out)
        seen.append({name: value.copy() for name, value in vars(out).items()})
    return {name: np.stack([now[name] for now in seen]) for name in seen[0]} | states


PLAYED = {
    "v2": ("smax/smacv2_5_units", {"attack_mode": "random"}),
    "vectors": ("smax/3m", {"action_type": "continuous"}),
}


def main():
    env.cpu = cuda
    played = {
        f"{case}/{key}": v for case, (name, options) in PLAYED.items() for key, v in play(name, **options).items()
    }
    played |= {f"seeds/{key}": value for key, value in play_seeds(torch.device("cpu")).items()}
    np.savez(sys.argv[1], **played)
    for argument in sys.argv[2:]:
        name, steps, games = argument.split(":")
        worst, thrown = replay(around_an_end(load(name), int(steps), int(games)))
        print(json.dumps({"trace": name, "thrown": thrown, "worst": worst}), flush=True)


if __name__ == "__main__":
    main()
