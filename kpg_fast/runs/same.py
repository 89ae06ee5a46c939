"""Whether a configuration is still that of the run whose checkpoint is to go on."""

from pathlib import Path
from typing import Any

from kpg_fast.config import Config
from kpg_fast.errors import UsageError
from kpg_fast.place import on_cpu

# What may change from one stretch of a run to the next.
_OF_THE_STRETCH = {"run_dir", "device", "graphs", "debug_drift", "replay_dir", "eval_episodes"}
_OF_THE_STRETCH |= {"eval_every", "eval_every_episodes"}
_OF_THE_MACHINE = {"threads", "timeout", "launch_timeout", "stagger", "max_failures"}  # options of environments


def require_same(config: Config, saved: Config, path: Path) -> None:
    """Raise ``UsageError`` if ``config`` is of another run than the checkpoint's, ``saved``.

    A run may move between a card and the CPU, and to another length unless its learning rate is annealed over it.
    """
    mine, theirs = _of_the_run(config), _of_the_run(on_cpu(saved) if config.device == "cpu" else saved)
    for name in mine:
        if name not in theirs or mine[name] != theirs[name]:
            raise UsageError(
                f"{path / 'config.json'} says {name} = {mine[name]!r}, its checkpoint {theirs.get(name)!r}: a run goes "
                "on as it began"
            )


def _of_the_run(config: Config) -> dict[str, Any]:
    values = config.flat()
    may_change = set(_OF_THE_STRETCH)
    if not values.get("anneal_lr"):
        may_change.add("total_steps")
    if not values.get("replay_dir"):
        may_change.add("checkpoint_every")  # which sizes a replay's file
    values["env_options"] = {n: v for n, v in config.options().items() if n not in _OF_THE_MACHINE}
    return {name: value for name, value in values.items() if name not in may_change}
