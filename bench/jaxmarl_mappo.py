"""Run JaxMARL's own MAPPO script for SMAX, unchanged, and print what it measures as JSON lines.

The script is not in JaxMARL's wheel, so this takes the path of a checkout: baselines/MAPPO/mappo_rnn_smax.py is
imported as it stands. Its logging (wandb) and command line (hydra) are replaced by stand-ins that only record, so
that neither an account nor a configuration tree is needed; the training itself is one jitted call as theirs.

    python bench/jaxmarl_mappo.py CHECKOUT [--map 2s3z] [--steps 1000000] [--seed 0] [--num-envs 128]

Needs jaxmarl, distrax and omegaconf; it runs on whatever device JAX finds.
"""

import argparse
import importlib.util
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

SETTINGS: dict[str, Any] = {  # baselines/MAPPO/config/mappo_homogenous_rnn_smax.yaml
    "LR": 0.002,
    "NUM_ENVS": 128,
    "NUM_STEPS": 128,
    "FC_DIM_SIZE": 128,
    "GRU_HIDDEN_DIM": 128,
    "UPDATE_EPOCHS": 4,
    "NUM_MINIBATCHES": 4,
    "GAMMA": 0.99,
    "GAE_LAMBDA": 0.95,
    "CLIP_EPS": 0.2,
    "SCALE_CLIP_EPS": False,
    "ENT_COEF": 0.0,
    "VF_COEF": 0.5,
    "MAX_GRAD_NORM": 0.25,
    "ACTIVATION": "relu",
    "OBS_WITH_AGENT_ID": True,
    "ANNEAL_LR": True,
    "ENV_KWARGS": {"see_enemy_actions": True, "walls_cause_death": True, "attack_mode": "closest"},
}


def load_script(checkout: Path, log: list[dict[str, float]], start: list[float]) -> Any:
    """Import the training script with wandb and hydra replaced by recorders."""

    def record(values: dict[str, Any]) -> None:
        row = {name: float(values[name]) for name in ("returns", "win_rate", "env_step")}
        log.append(row | {"seconds": time.perf_counter() - start[0]})

    wandb = types.ModuleType("wandb")
    wandb.log = record  # type: ignore[attr-defined]
    hydra = types.ModuleType("hydra")
    hydra.main = lambda **_: lambda function: function  # type: ignore[attr-defined]
    sys.modules.update(wandb=wandb, hydra=hydra)
    path = checkout / "baselines" / "MAPPO" / "mappo_rnn_smax.py"
    if not path.is_file():
        sys.exit(f"{path} does not exist: give the path of a JaxMARL checkout")
    spec = importlib.util.spec_from_file_location("mappo_rnn_smax", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Compile, train, and print one line an update and one with the totals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--map", default="2s3z")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-envs", type=int, default=SETTINGS["NUM_ENVS"])
    args = parser.parse_args()

    log: list[dict[str, float]] = []
    start = [time.perf_counter()]
    script = load_script(args.checkout, log, start)
    import jax

    chosen = {"MAP_NAME": args.map, "TOTAL_TIMESTEPS": args.steps, "SEED": args.seed, "NUM_ENVS": args.num_envs}
    config = SETTINGS | chosen
    key = jax.random.PRNGKey(args.seed)
    compiled = jax.jit(script.make_train(config)).lower(key).compile()
    compile_seconds = time.perf_counter() - start[0]
    start[0] = time.perf_counter()
    jax.block_until_ready(compiled(key))
    seconds = time.perf_counter() - start[0]
    log.sort(key=lambda row: row["env_step"])
    for row in log:
        print(json.dumps(row))
    steps = config["NUM_UPDATES"] * config["NUM_STEPS"] * config["NUM_ENVS"]
    totals = {"steps": steps, "seconds": seconds, "env_sps": steps / seconds, "compile_seconds": compile_seconds}
    about = {"map": args.map, "seed": args.seed, "num_envs": args.num_envs, "device": str(jax.devices()[0])}
    print(json.dumps(totals | about | {"jax": jax.__version__}))


if __name__ == "__main__":
    main()
