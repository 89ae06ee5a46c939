"""Greedy episodes on environments that are not trained on."""

from collections.abc import Callable

from kpg_fast.config import Config
from kpg_fast.envs import Groups, UnevenVecEnv, VecEnv, make
from kpg_fast.rollout import Policy, play

_SEED = 1_000_003  # added to a run's seed: its evaluation plays other episodes than its training
_ENVS = 128


class Evaluation:
    """Plays the evaluations of a run.

    Environments are built anew each time and so play the same episodes. Games that take long to start (those that take
    turns by themselves) are no more than are trained on, and kept from one evaluation to the next.
    """

    def __init__(self, config: Config, training: VecEnv) -> None:
        self.config = config
        self.kept = isinstance(training, UnevenVecEnv) and not isinstance(training, Groups)
        self.most = training.spec.num_envs if self.kept else _ENVS
        self.env: VecEnv | None = None

    def play(
        self, episodes: int, player: Callable[[int], Policy], watch: Callable[[VecEnv], None] | None = None
    ) -> dict[str, float]:
        """At least ``episodes`` episodes of ``player(number of environments)``; see `kpg_fast.trainer.Trainer`."""
        envs = min(episodes, self.most)
        per_env = -(-episodes // envs)
        if self.env is None or self.env.spec.num_envs != envs:
            self.close()
            config = self.config
            options = config.options()
            if watch and per_env == 1 and config.env.startswith("smax/"):
                options["auto_reset"] = False  # so that the end can be seen
            self.env = make(config.env, envs, config.seed + _SEED, "cpu", **options)
        try:
            metrics = play(self.env, player(envs), per_env, watch)
            if isinstance(self.env, UnevenVecEnv):
                metrics |= {name: count for name, count in self.env.metrics().items() if count}
            return {f"eval/{name}": value for name, value in metrics.items()}
        finally:
            if not self.kept:
                self.close()

    def close(self) -> None:
        """Release the environments."""
        if self.env is not None:
            self.env.close()
            self.env = None
