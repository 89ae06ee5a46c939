"""Both clients on the same games: do they see, and are they paid, the same?"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import fields
from typing import Any

import numpy as np

from kpg_fast.envs.smac.supervisor import SmacEnv
from kpg_fast.envs.vec_env import Array, StepArrays
from kpg_fast.errors import EnvironmentFailure

PARITY_SCENARIOS = ("3m", "2s3z", "MMM", "1c3s5z", "bane_vs_bane", "corridor", "6h_vs_8z", "10gen_terran_5v5")
"""One of each kind of map."""
_REWARD_TOLERANCE = 1e-6


def compare_clients(
    scenarios: Sequence[str] = PARITY_SCENARIOS, episodes: int = 2, seed: int = 0, **options: Any
) -> Iterator[tuple[str, bool, str]]:
    """Play the same seeds and actions through the libraries and through our own client, on the game ``SC2PATH`` names.

    Observations, states, masks and ends must be equal, rewards to 1e-6 (of float32 beyond 1). On a game that does not
    repeat itself for the same seed they cannot be: then the first difference is in the positions of the first step.

    Args:
        scenarios: names of `kpg_fast.envs.smac.names`.
        episodes: whole episodes of each.
        seed: of the games and of the random actions.
        options: of `kpg_fast.envs.smac.make_env`.

    Yields:
        (scenario, whether the clients agree, how far or where not).

    Raises:
        UsageError: the game, a map or a client's package is missing.
    """
    from kpg_fast.envs.smac import make_env

    for name in scenarios:
        with (
            closing(make_env(name, 1, seed, client="smac", sync=True, **options)) as library,
            closing(make_env(name, 1, seed, client="native", sync=True, **options)) as native,
        ):
            try:
                yield name, *_compare(library, native, episodes, np.random.default_rng(seed))
            except EnvironmentFailure as failure:
                yield name, False, str(failure)


def _compare(library: SmacEnv, native: SmacEnv, episodes: int, rng: np.random.Generator) -> tuple[bool, str]:
    one, two = StepArrays.empty(library.spec), StepArrays.empty(native.spec)
    library.reset(one)
    native.reset(two)
    steps = ended = 0
    while ended < episodes:
        difference = _difference(one, two)
        if difference:
            return False, f"differ after {steps} steps in {difference}"
        action = _choose(one.avail_actions, rng)
        library.step(action, one)
        native.step(action, two)
        if not (one.valid[0] and two.valid[0]):
            return False, f"a game was lost after {steps} steps"
        steps += 1
        ended += int(one.terminated[0] or one.truncated[0])
    version = native.spec.facts["game_version"]
    return True, f"equal over {ended} episodes, {steps} steps, on {version}"


def _choose(avail: Array, rng: np.random.Generator) -> Array:
    """Random actions that mostly attack where they can, so that there is something to compare."""
    first_attack = 6
    weight = np.where(np.arange(avail.shape[2]) >= first_attack, 8.0, 1.0)
    actions: Array = (rng.random(avail.shape) * avail * weight).argmax(2).astype(np.int32)
    return actions


def _difference(one: StepArrays, two: StepArrays) -> str:
    """The first array that differs, and where; "" if none does."""
    for field in fields(StepArrays):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if field.name == "reward":
            wrong = np.abs(a - b) > _REWARD_TOLERANCE * np.maximum(1, np.abs(a))
        elif field.name.startswith("last_") and not (one.terminated[0] or one.truncated[0]):
            continue
        else:
            wrong = a != b
        if wrong.any():
            place = tuple(int(k) for k in np.argwhere(wrong)[0])
            return f"{field.name}{list(place)}: {a[place]} with smac, {b[place]} with native"
    return ""
