"""Record `golden.npz` with the unmodified smac and smacv2 on the stand-in, where both are installed.

Each case runs in a process of its own, since the two libraries cannot share one.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

from smac_episodes import CASES, EPISODES, GOLDEN, SEED, Recording, choose  # noqa: E402
from starcraft import install  # noqa: E402

from kpg_fast.envs.smac.layout import Layout  # noqa: E402
from kpg_fast.envs.smac.scenarios import find  # noqa: E402
from kpg_fast.envs.smac.supervisor import game_seed  # noqa: E402
from kpg_fast.envs.smac.teams import stream  # noqa: E402


def _library_env(case: str) -> Any:
    """The library's own environment; its random numbers begin as our clients' do."""
    name, options = CASES[case]
    scenario, seed = find(name), game_seed(SEED, 0, 0)
    options = Layout.build(scenario, options, False, True, native=False).options | {"seed": seed}
    if not scenario.v2:
        from smac.env import StarCraft2Env

        return StarCraft2Env(map_name=scenario.map_name, **options)
    from smacv2.env import StarCraftCapabilityEnvWrapper
    from smacv2.env.starcraft2.distributions import Distribution

    env = StarCraftCapabilityEnvWrapper(map_name=scenario.map_name, **options)

    def plant(distribution: Any, place: str) -> None:
        for key, value in vars(distribution).items():
            if key == "rng":
                distribution.rng = stream(seed, place)
            elif isinstance(value, Distribution):
                plant(value, f"{place}.{key}")

    for key, distribution in env.env_key_to_distribution_map.items():
        plant(distribution, key)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (what smacv2 draws from)
    return env


def record(case: str) -> Recording:
    """Play the case's episodes as the libraries' own examples do."""
    env, rng, recording = _library_env(case), np.random.default_rng(SEED), Recording()
    for _ in range(EPISODES):
        env.reset()
        over = False
        while not over:
            obs = np.stack(env.get_obs())
            state, avail = env.get_state(), np.array(env.get_avail_actions())
            recording.look(obs, state, avail)
            reward, over, info = env.step(choose(avail, rng))
            recording.step(reward, over, info["battle_won"])
        recording.look(np.stack(env.get_obs()), env.get_state(), np.zeros_like(avail))
    env.close()
    return recording


def main() -> None:
    """Record all cases, or the named ones anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=[*CASES])
    parser.add_argument("--alone", action="store_true", help="this one, in this process, with the SC2PATH there is")
    parser.add_argument("--into", type=Path, default=GOLDEN)
    arguments = parser.parse_args()
    if arguments.alone:
        (case,) = arguments.cases
        np.savez_compressed(arguments.into, **record(case).arrays(case))
        return
    kept = dict(np.load(arguments.into)) if arguments.into.exists() else {}
    everything = {name: array for name, array in kept.items() if name.rpartition("/")[0] in CASES}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SC2PATH"] = str(install(Path(folder) / "SC2", ("4.6.2", "4.10.0")))
        for case in arguments.cases:
            path = Path(folder) / "case.npz"
            command = [sys.executable, "-W", "ignore", __file__, case, "--alone", "--into", str(path)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            everything |= dict(np.load(path))
            print(case, len(everything[f"{case}/rewards"]), "steps", flush=True)
    np.savez_compressed(arguments.into, **everything)


if __name__ == "__main__":
    main()
