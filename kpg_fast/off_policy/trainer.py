"""K-MADDPG and K-FACMAC on one environment: act, store, learn, evaluate, and all that an exact resume needs."""

from collections import defaultdict
from collections.abc import Callable
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from kpg_fast.config import Config
from kpg_fast.envs import StepArrays, UnevenVecEnv, VecEnv, make
from kpg_fast.envs.vec_env import Array
from kpg_fast.evaluation import Evaluation
from kpg_fast.graphs import Capture, cuda_graph
from kpg_fast.k_facmac import KFacmac
from kpg_fast.k_maddpg import KMaddpg
from kpg_fast.off_policy.experience import Episodes, Transitions
from kpg_fast.off_policy.learning import Learning, OnCpu, OnDevice
from kpg_fast.off_policy.player import Player
from kpg_fast.place import Place, place_of
from kpg_fast.rollout import EpisodeTracker, enough, summarise
from kpg_fast.trainer import require_fit

_ALGORITHMS: dict[str, type[KMaddpg] | type[KFacmac]] = {"k-maddpg": KMaddpg, "k-facmac": KFacmac}


class OffPolicyTrainer:
    """See :class:`kpg_fast.trainer.Trainer`; an update is ``num_steps`` steps of every environment with the learning
    that goes with them. Environments step on the host, wherever the rest is.

    Args:
        config: of the run.
        dtype: float64 is for tests.
        place: where; by default where ``config`` says.
        capture: how an update is captured where the place has graphs.
    """

    def __init__(
        self,
        config: Config,
        dtype: torch.dtype = torch.float32,
        place: Place | None = None,
        capture: Capture[None] | None = cuda_graph,
    ) -> None:
        self.config, self.settings, self.place = config, config.off_policy, place or place_of(config)
        s, place = self.settings, self.place
        self.env = make(config.env, s.num_envs, config.seed, "cpu", **config.options())
        self.evaluation = Evaluation(config, self.env)
        spec = self.spec = self.env.spec
        self.facts = dict(spec.facts) | {"updates_per_sample": f"{s.updates_per_sample:g}"}
        self.generator = torch.Generator().manual_seed(config.seed)
        path, spare = self._replay_file()
        self.experience = (Episodes if s.recurrent else Transitions)(spec, s, dtype, path, spare, place)
        inputs = spec.obs_size + self.experience.appended
        self.algorithm = _ALGORITHMS[config.algorithm](
            spec, s, config.levels, inputs, dtype, config.debug_drift, config.precision, place.device
        )
        self.algorithm.initialise(self.generator)
        learns = (self.algorithm, self.experience, self.generator)
        most = ceil(s.num_envs * s.updates_per_sample) + 1
        self.learning: Learning = OnDevice(*learns, place, most, capture) if place.hosted else OnCpu(*learns)
        self.explorer = Player(self.algorithm.actor, self.experience, s.num_envs, place)
        self.out = StepArrays.empty(spec)
        self.env.reset(self.out)
        self.experience.see(self.out)
        self.reset = torch.ones(s.num_envs, dtype=torch.bool)
        self.episodes = EpisodeTracker.allocate(s.num_envs)
        shape = (s.num_envs, spec.num_agents, spec.num_actions) if spec.continuous else (s.num_envs, spec.num_agents)
        self.action = torch.zeros(shape, dtype=torch.float32 if spec.continuous else torch.int32)
        self.running = 0
        self.due = 0.0
        self.updates, self.num_updates = 0, config.num_updates

    def _replay_file(self) -> tuple[Path | None, int]:
        """Where the replay is kept, and how many rows at most are added between two checkpoints."""
        s, config = self.settings, self.config
        if s.replay_dir is None:
            return None, 0
        run_dir = Path(config.run_dir or f"{config.algorithm}-{config.env}-{config.seed}").resolve()
        # a run directory of the same name elsewhere is another run
        name = f"{run_dir.name}-{crc32(bytes(run_dir)):08x}.replay"
        spare = s.num_envs * s.num_steps * config.checkpoint_every
        return Path(s.replay_dir) / name, max(spare // 10, 100) if s.recurrent else spare

    @property
    def env_steps(self) -> int:
        """Environment steps done, over all environments."""
        return self.updates * self.settings.num_steps * self.settings.num_envs

    def update(self) -> dict[str, float]:
        """Play ``num_steps`` steps of every environment; learn as often as the stored samples ask for."""
        start, s = perf_counter(), self.settings
        spent: dict[str, float] = defaultdict(float)
        ended = []
        left = self._anneal()
        taken, total, ready = 0, s.num_steps * s.num_envs, np.arange(s.num_envs)
        while taken < total:
            ready, stored = self._step(ready[: total - taken - self.running], self.env_steps + taken, spent)
            taken += len(ready)
            ended.append(self.episodes.step(self.out, envs=ready))
            if len(self.experience.ring) < max(s.warmup, 1):
                continue
            self.due += stored * s.updates_per_sample
            count = 0
            while self.due >= 1:
                self.due -= 1
                count += 1
            if count:
                self.learning.learn(count, taken == total, spent)
        self.updates += 1
        learned = float(self.learning.count)
        means, of_last = self.learning.read()
        metrics = summarise(ended) | means | spent
        metrics |= {"learned": learned, "replay": float(len(self.experience.ring)), "lr": s.lr * left}
        if isinstance(self.env, UnevenVecEnv):
            metrics |= self.env.metrics()
        seconds = perf_counter() - start
        metrics["env_sps"] = total / seconds
        metrics["agent_sps"] = metrics["env_sps"] * self.spec.num_agents
        return metrics | of_last

    def _anneal(self) -> float:
        """Set the learning rates of this line of metrics; returns their share of those of the settings."""
        s = self.settings
        left = 1 - self.updates / self.num_updates if s.anneal_lr else 1.0
        for learner, lr in zip(self.algorithm.learners, (s.lr, s.critic_lr), strict=True):
            learner.lr = lr * left
        return left

    def _step(self, going: Array, done: int, spent: dict[str, float]) -> tuple[Array, int]:
        """One step of the environments ``going``; returns which are done, and how many samples that stored.

        Where environments are uneven, those that are done first come back first, and ``self.running`` are under way.
        """
        start, out, envs = perf_counter(), self.out, torch.from_numpy(going)
        if len(going):
            obs, avail = torch.from_numpy(out.obs)[envs], torch.from_numpy(out.avail_actions)[envs]
            self.action[envs] = self.explorer.explore(envs, obs, avail, self.reset[envs], self.generator, done)
        chosen = perf_counter()
        action = self.explorer.for_env(self.action).numpy()
        if isinstance(self.env, UnevenVecEnv) and self.env.uneven:
            self.env.send(action, going)
            self.running += len(going)
            ready: Array = self.env.recv(out, enough(self.running, self.spec.num_envs))
            self.running -= len(ready)
        else:
            self.env.step(action, out)
            ready = going
        stepped = perf_counter()
        self.reset[torch.from_numpy(ready)] = torch.from_numpy((out.terminated | out.truncated)[ready])
        stored = self.experience.record(self.action.numpy(), out, ready)
        spent["time/policy"] += chosen - start
        spent["time/env"] += stepped - chosen
        spent["time/replay"] += perf_counter() - stepped
        return ready, stored

    def evaluate(self, episodes: int, watch: Callable[[VecEnv], None] | None = None) -> dict[str, float]:
        """See :class:`kpg_fast.trainer.Trainer`."""
        return self.evaluation.play(episodes, self.player, watch)

    def player(self, num_envs: int) -> Player:
        """See :class:`kpg_fast.trainer.Trainer`."""
        return Player(self.algorithm.actor.on_host(), self.experience, num_envs)

    def tensors(self) -> dict[str, Tensor]:
        """See :class:`kpg_fast.trainer.Trainer`."""
        tensors = {f"env/{name}": torch.as_tensor(value) for name, value in self.env.state_dict().items()}
        tensors |= {f"out/{name}": torch.from_numpy(value) for name, value in vars(self.out).items()}
        tensors |= {"reset": self.reset, "generator": self.generator.get_state()}
        tensors |= self.algorithm.tensors() | self.explorer.tensors() | self.episodes.tensors()
        return tensors | self.experience.tensors()

    def counters(self) -> dict[str, Any]:
        """See :class:`kpg_fast.trainer.Trainer`."""
        mine = {"updates": self.updates, "due": self.due, "replay_written": self.experience.ring.written}
        return mine | self.algorithm.counters()

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """See :class:`kpg_fast.trainer.Trainer`."""
        mine = self.tensors()
        require_fit(mine, tensors, {"replay/rows"})  # the replay checks its rows itself
        self.experience.restore(tensors, counters["replay_written"])
        self.env.load_state_dict({n[4:]: t.numpy() for n, t in tensors.items() if n.startswith("env/")})
        self.generator.set_state(tensors["generator"])
        for name, target in mine.items():
            if not name.startswith(("env/", "replay/")) and name != "generator":
                target.copy_(tensors[name])
        self.updates, self.due = counters["updates"], counters["due"]
        self.algorithm.restore_counters(counters)

    def close(self) -> None:
        """Release the environments."""
        self.env.close()
        self.evaluation.close()
