"""The update of one minibatch of K-MADDPG and K-FACMAC against both as usually written, and what a level costs.

Sizes are FACMAC's on HalfCheetah-2x3: observations of 12, a state of 17, 6 actuators shared out among N agents.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from bench.measure import Case, Samples, in_turns
from bench.plain_off_policy import PlainOffPolicy
from kpg_fast.envs import EnvSpec
from kpg_fast.k_facmac import KFacmac
from kpg_fast.k_maddpg import KMaddpg
from kpg_fast.off_policy.experience import Batch, Transitions
from kpg_fast.off_policy.settings import FACMAC_PRESETS, MADDPG_PRESETS
from kpg_fast.place import CPU, Place

TESTS = ("tests/off_policy/test_update.py", "tests/bench/test_plain_off_policy.py", "tests/kernels/test_mixer.py")


def build(
    algorithm: str,
    num_agents: int,
    batch_size: int,
    levels: int,
    dtype: torch.dtype = torch.float32,
    precision: str = "fp32",
    **values: Any,
) -> tuple[KMaddpg | KFacmac, Batch]:
    """An algorithm with random parameters and a random minibatch of transitions."""
    plain = {"state_norm": False, "rmsprop_correction": False}  # as the plain implementation
    made, experience, generator = parts(algorithm, num_agents, batch_size, levels, dtype, precision, **plain | values)
    return made, experience.sample(generator)


def parts(
    algorithm: str,
    num_agents: int,
    batch_size: int,
    levels: int,
    dtype: torch.dtype = torch.float32,
    precision: str = "fp32",
    place: Place = CPU,
    **values: Any,
) -> tuple[KMaddpg | KFacmac, Transitions, torch.Generator]:
    """An algorithm with random parameters, a replay of random transitions, and what draws from it."""
    bound = np.ones((num_agents, 6 // num_agents), np.float32)
    spec = EnvSpec("bench", 1, num_agents, 12, 17, 6 // num_agents, 1000, -bound, bound)
    presets = FACMAC_PRESETS if algorithm == "k-facmac" else MADDPG_PRESETS
    settings = replace(presets["mamujoco"], batch_size=batch_size, buffer_size=4 * batch_size, **values)
    experience = Transitions(spec, settings, dtype, place=place)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(experience.ring.rows.shape, generator=generator)
    experience.columns.views(rows)["terminated"].copy_(rows[:, 0] > 2)
    experience.ring.add(rows)
    kind: type[KMaddpg] | type[KFacmac] = KFacmac if algorithm == "k-facmac" else KMaddpg
    made = kind(spec, settings, levels, spec.obs_size, dtype, precision=precision, device=place.device)
    made.initialise(generator)
    return made, experience, generator


def against_plain(algorithm: str, num_agents: int, batch_size: int, levels: int) -> Samples:
    """Milliseconds an update by turns: ours in float32 and with ``--precision bf16``, and the plain one in float32."""
    ours, batch = build(algorithm, num_agents, batch_size, levels)
    bf16, _ = build(algorithm, num_agents, batch_size, levels, precision="bf16")
    plain, generator = PlainOffPolicy(ours), torch.Generator().manual_seed(0)
    contenders = {
        "ours": lambda: ours.update(batch, generator),
        "bf16": lambda: bf16.update(batch, generator),
        "plain": lambda: plain.update(batch),
    }
    return _milliseconds(in_turns(contenders, repeats=9 if batch_size > 500 else 25))


def against_one_level(algorithm: str, num_agents: int, batch_size: int, levels: int) -> Samples:
    """Milliseconds an update with K levels and, as reference, with one."""
    generator = torch.Generator().manual_seed(0)
    (ours, batch), (base, _) = (build(algorithm, num_agents, batch_size, k) for k in (levels, 1))
    contenders = {"ours": lambda: ours.update(batch, generator), "K1": lambda: base.update(batch, generator)}
    return _milliseconds(in_turns(contenders, repeats=9 if batch_size > 500 else 25))


def _milliseconds(seconds: dict[str, list[float]]) -> Samples:
    return {contender: [1e3 * s for s in samples] for contender, samples in seconds.items()}


def cases(peers: str | None = None) -> list[Case]:
    """Both algorithms at batches of 100 and 1024 and 2, 4 and 6 agents with K = 1 and 2; levels 2 to 4 over one."""
    made = []
    for algorithm in ("k-maddpg", "k-facmac"):
        for n, size, k in [(n, size, k) for size in (100, 1024) for n in (2, 4, 6) for k in (1, 2)]:
            made.append(_case(against_plain, "plain", algorithm, n, size, k, quick=(n, size, k) == (2, 100, 2)))
        for size, k in [(size, k) for size in (100, 1024) for k in (2, 3, 4)]:
            made.append(_case(against_one_level, "K1", algorithm, 2, size, k))
    return made


def _case(run: Any, reference: str, algorithm: str, n: int, size: int, k: int, quick: bool = False) -> Case:
    kind = "update" if reference == "plain" else "level"
    return Case(
        name=f"off_policy.{kind}/{algorithm}/N{n}/B{size}/K{k}",
        metric="update_ms",
        unit="ms",
        run=partial(run, algorithm, n, size, k),
        reference=reference,
        higher_is_better=False,
        settings={"preset": "mamujoco", "num_agents": n, "batch_size": size, "levels": k},
        tests=TESTS,
        quick=quick,
    )
