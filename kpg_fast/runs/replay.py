"""A film of one greedy episode of a run."""

from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kpg_fast.envs import VecEnv
from kpg_fast.errors import UsageError
from kpg_fast.runs.run import load
from kpg_fast.runs.video import check_target, write_video


def record(path: str | Path, video: str | Path) -> Path:
    """Play one greedy episode and write it, a frame an environment step.

    Args:
        path: a run directory or a checkpoint.
        video: a ``.gif`` or ``.mp4`` file.

    Raises:
        UsageError: as :func:`kpg_fast.load`; an environment without pictures; a file that cannot be written.
    """
    check_target(Path(video))
    frames: list[Any] = []
    with closing(load(path)) as trainer:
        family = trainer.config.env.partition("/")[0]
        if not find_spec(f"kpg_fast.envs.{family}.render"):
            raise UsageError(f"{family} environments cannot be drawn")
        render_frame = import_module(f"kpg_fast.envs.{family}.render").render_frame

        def watch(env: VecEnv) -> None:
            frames.append(render_frame(env, 0))

        trainer.evaluate(1, watch)
    write_video(frames, Path(video))
    return Path(video)
