"""K-MAPPO on one environment: rollouts, updates, evaluation, and all that an exact resume needs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from kpg_fast.action_distribution import distribution_of
from kpg_fast.config import Config
from kpg_fast.envs import EnvSpec, SideBySide, UnevenVecEnv, VecEnv, make_in_turns, make_seeds
from kpg_fast.errors import UsageError
from kpg_fast.evaluation import Evaluation
from kpg_fast.graphs import Capture, Replayed, cuda_graph
from kpg_fast.k_mappo import KMappo
from kpg_fast.k_mappo_metrics import Measured
from kpg_fast.k_mappo_schedule import Schedule
from kpg_fast.minibatch import Minibatch
from kpg_fast.networks.actor_critic import Network
from kpg_fast.networks.input_norm import InputNorm
from kpg_fast.networks.value_norm import ValueNorm
from kpg_fast.place import Fetched, Place, place_of
from kpg_fast.policies import Actor, Critic
from kpg_fast.rollout import EpisodeTracker, Rollout
from kpg_fast.stopwatch import Stopwatch
from kpg_fast.store.learner import Learner
from kpg_fast.trainer import require_fit


def build_actor(
    config: Config,
    spec: EnvSpec,
    dtype: torch.dtype,
    seeds: Sequence[int] | None = None,
    device: torch.device | None = None,
) -> Actor:
    """The actors of a run with their optimiser, uninitialised."""
    s, n, seeds = config.k_mappo, spec.num_agents, seeds or (config.seed,)
    ids = n if s.agent_id and s.shared_actor else 0
    network = Network(spec.obs_size, s.hidden, spec.num_actions, s.recurrent, 0.01, ids, config.forward_precision)
    distribution = distribution_of(spec, s.initial_std, device)
    groups, drift = len(seeds) * (1 if s.shared_actor else n), config.debug_drift
    shapes = network.shapes() | distribution.shapes()
    learner = Learner(shapes, groups, s.optimizer, s.lr, s.max_grad_norm, dtype=dtype, debug_drift=drift, device=device)
    norm = InputNorm(spec.obs_size, len(seeds), device) if s.input_norm else None
    return Actor(network, learner, n, seeds, distribution, norm)


def build_critic(config: Config, spec: EnvSpec, dtype: torch.dtype, seeds: Sequence[int], place: Place) -> Critic:
    """The critic of a run with its optimiser, uninitialised."""
    s, n, sets = config.k_mappo, spec.num_agents, len(seeds)
    network = Network(spec.state_size, s.hidden, 1, s.recurrent, 1.0, n, config.forward_precision)
    learner = Learner(network.shapes(), sets, s.optimizer, s.lr, s.max_grad_norm, dtype=dtype, device=place.device)
    norm = ValueNorm(sets, dtype, place.device) if s.value_norm else None
    cuts = 1 + (s.num_steps - 1) // spec.max_episode_steps if place.queued else None
    state_norm = InputNorm(spec.state_size, sets, place.device) if s.input_norm else None
    return Critic(network, learner, n, s.death_mask, norm, cuts, state_norm)


class KMappoTrainer:
    """See :class:`kpg_fast.trainer.Trainer`.

    Args:
        config: of every seed.
        dtype: float64 is for tests: every operation in double precision.
        seeds: several, trained as one batch, each as if it were alone; by default that of ``config``. What has an
            ``index`` is then asked for one of them (:mod:`kpg_fast.k_mappo_seeds`).
        place: where; by default where ``config`` says.
        capture: how work is captured where the place has graphs.
    """

    def __init__(
        self,
        config: Config,
        dtype: torch.dtype = torch.float32,
        seeds: Sequence[int] | None = None,
        place: Place | None = None,
        capture: Capture[Any] | None = cuda_graph,
    ) -> None:
        self.seeds = tuple(seeds or (config.seed,))
        self.configs = [replace(config, seed=seed) for seed in self.seeds]
        self.config, self.dtype, self.place = self.configs[0], dtype, place or place_of(config)
        s, device, queued = config.k_mappo, self.place.device, self.place.queued
        self.env = _make_env(config, self.seeds, self.place)
        self.parts = self.env.parts if isinstance(self.env, SideBySide) else [self.env]
        spec = self.env.spec
        if refusal := _refusal(self.env, len(self.seeds)):
            self.env.close()
            raise UsageError(refusal)
        self.evaluations = [Evaluation(each, self.env) for each in self.configs]
        self.facts = dict(spec.facts)
        self.generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        self.actor = build_actor(config, spec, dtype, self.seeds, device)
        self.critic = build_critic(config, spec, dtype, self.seeds, self.place)
        for index, generator in enumerate(self.generators):
            self.actor.initialise(index, generator)
            self.critic.initialise(index, generator)
        self.actor.begin(spec.num_envs)
        self.critic.begin(spec.num_envs)
        self.watch = Stopwatch(on=not queued)
        self.algorithm = KMappo(config, self.actor, self.critic, self.watch)
        self.rollout = Rollout.allocate(spec, s.num_steps, device, self.place.hosted)
        self.rollout.begin(self.env)
        self.episodes = [EpisodeTracker.allocate(s.num_envs) for _ in self.seeds]
        self.outcomes = [
            [out.part(self._envs(index)) for out in self.rollout.outcomes] for index in range(len(self.seeds))
        ]
        self.schedule = Schedule(config, len(self.seeds), self.place)
        self.fetched_outcomes, self.fetched_metrics = Fetched(), Fetched()
        how = capture if self.place.graphs else None
        self._roll_out = Replayed(self._roll_out_once, None if self.place.hosted else how)
        self._learn = Replayed(self._learn_once, how)
        self.updates, self.num_updates = 0, config.num_updates

    @property
    def env_steps(self) -> int:
        """Environment steps done, over all environments of a seed."""
        return self.updates * self.config.k_mappo.num_steps * self.config.k_mappo.num_envs

    def _envs(self, index: int) -> slice:
        """The environments of a seed."""
        return slice(index * self.config.k_mappo.num_envs, (index + 1) * self.config.k_mappo.num_envs)

    def update(self) -> dict[str, float]:
        """Roll out, then several passes of minibatch updates over it."""
        return self.update_all()[0]

    def update_all(self) -> list[dict[str, float]]:
        """:meth:`update` of all seeds at once; the metrics of each."""
        s, start = self.config.k_mappo, perf_counter()
        self.roll_out()
        self.rollout.fetch_outcomes(self.fetched_outcomes)
        self.actor.learner.lr = self.critic.learner.lr = self.schedule.lr
        self.schedule.shuffle(self.generators)
        measured, table = self._learn()
        self.updates += 1
        for part in (self.actor, self.critic):
            part.learner.steps = self.updates * s.num_epochs * s.num_minibatches
        read = measured.fetch(table, self.fetched_metrics)
        self.fetched_outcomes.wait()  # a card is still learning
        ended = [track.follow(steps) for track, steps in zip(self.episodes, self.outcomes, strict=True)]
        self.fetched_metrics.wait()
        rate = s.num_steps * s.num_envs / (perf_counter() - start)
        common = self._seconds() | {"lr": self.schedule.lr}
        common |= {"env_sps": rate, "agent_sps": rate * self.env.spec.num_agents}
        if isinstance(self.env, UnevenVecEnv):
            common |= self.env.metrics()
        return [episodes | own | common for episodes, own in zip(ended, measured.metrics(read), strict=True)]

    def _seconds(self) -> dict[str, float]:
        seconds = self.watch.read()
        levels = [value for name, value in seconds.items() if name.startswith("time/level_")]
        return seconds | ({"time/levels": sum(levels)} if levels else {})

    def roll_out(self) -> None:
        """Collect the next rollout, and keep the hidden states that it begins with."""
        self.schedule.begin(self.updates)
        self._roll_out()

    def _roll_out_once(self) -> None:
        hidden = self.actor.hidden  # the same memory at every call
        self.actor.start.copy_(hidden)
        self.critic.start.copy_(self.critic.hidden)
        void = self.place.hosted or not self.place.queued
        self.rollout.collect(self.env, self.actor, self.schedule.steps, self.watch, void)
        hidden.copy_(self.actor.hidden)
        self.actor.hidden = hidden

    def whole_batch(self) -> Minibatch:
        """The rollout with values and advantages."""
        actor, critic, rollout = self.actor, self.critic, self.rollout.by_seed(len(self.seeds))
        values, last_values, critic_hiddens = critic.evaluate(rollout)
        advantage, returns = self.algorithm.advantages(self.rollout, values, last_values)
        masks = self.algorithm.mask(rollout), self.algorithm.value_mask(rollout)
        hiddens = actor.per_env(actor.start), critic.per_env(critic.start)
        whole = Minibatch(rollout, *hiddens, values[:, :-1], advantage, returns, *masks)
        length = self.config.k_mappo.chunk_length
        if not length:
            return whole
        with torch.no_grad():
            obs = rollout.obs[:, :-1].to(self.dtype)
            _, actor_hiddens = actor.outputs(actor.theta, obs, actor.start, rollout.reset[:, :-1])
        return whole.stretches(length, actor_hiddens, critic_hiddens)

    def _learn_once(self) -> tuple[Measured, Tensor]:
        whole, measured = self.whole_batch(), Measured(self.config.levels)
        self.algorithm.clips = self.schedule.clips
        for samples, rates in self.schedule.minibatches():
            self.actor.learner.rates = self.critic.learner.rates = rates
            measured.follow(self.algorithm.update(whole.select(samples, self.dtype)))
        self._follow_inputs()
        return measured, measured.table(whole)

    def _follow_inputs(self) -> None:
        """Take what was seen into account, so that the next rollout is seen in its units."""
        rollout = self.rollout.by_seed(len(self.seeds))
        valid = rollout.valid
        if self.actor.norm is not None:
            self.actor.norm.update(rollout.obs[:, :-1], rollout.alive[:, :-1] & valid[..., None])
        if self.critic.state_norm is not None:
            self.critic.state_norm.update(rollout.state[:, :-1], valid)

    def evaluate(
        self, episodes: int, watch: Callable[[VecEnv], None] | None = None, index: int = 0
    ) -> dict[str, float]:
        """See :class:`kpg_fast.trainer.Trainer`."""
        return self.evaluations[index].play(episodes, lambda envs: self.player(envs, index), watch)

    def player(self, num_envs: int, index: int = 0) -> Actor:
        """See :class:`kpg_fast.trainer.Trainer`."""
        return self.actor.of_seed(index, num_envs)

    def tensors(self, index: int = 0) -> dict[str, Tensor]:
        """See :class:`kpg_fast.trainer.Trainer`; those of one seed, as a run of that seed alone would have them."""
        state = self.parts[index].state_dict()
        tensors = {f"env/{name}": torch.as_tensor(value) for name, value in state.items()}
        for name, part in (("actor", self.actor), ("critic", self.critic)):
            sets = part.sets_of(index)
            tensors |= {f"{name}/{slot}": value[sets] for slot, value in part.learner.tensors().items()}
            tensors[f"{name}/hidden"] = part.hidden[sets]
        if self.critic.norm is not None:
            tensors["critic/norm"] = self.critic.norm.statistics[index]
        for name, norm in (("actor", self.actor.norm), ("critic", self.critic.state_norm)):
            if norm is not None:
                tensors |= {f"{name}/inputs/{slot}": value for slot, value in norm.tensors(index).items()}
        tensors["generator"] = self.generators[index].get_state()
        return tensors | self.rollout.tensors(self._envs(index)) | self.episodes[index].tensors()

    def counters(self) -> dict[str, Any]:
        """See :class:`kpg_fast.trainer.Trainer`."""
        return {
            "updates": self.updates,
            "actor_steps": self.actor.learner.steps,
            "critic_steps": self.critic.learner.steps,
        }

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, Any], index: int = 0) -> None:
        """See :class:`kpg_fast.trainer.Trainer`; all seeds must be restored, with the same counters."""
        mine = self.tensors(index)
        require_fit(mine, tensors)
        self.parts[index].load_state_dict({n[4:]: t.numpy() for n, t in tensors.items() if n.startswith("env/")})
        self.generators[index].set_state(tensors["generator"])
        for name, target in mine.items():
            if not name.startswith("env/") and name != "generator":
                target.copy_(tensors[name])
        self.updates = counters["updates"]
        self.actor.learner.steps = counters["actor_steps"]
        self.critic.learner.steps = counters["critic_steps"]

    def close(self) -> None:
        """Release the environments."""
        self.env.close()
        for evaluation in self.evaluations:
            evaluation.close()


def _make_env(config: Config, seeds: Sequence[int], place: Place) -> VecEnv:
    """The environments of all seeds."""
    num_envs, options = config.k_mappo.num_envs, config.options()
    if not place.hosted:
        return make_seeds(config.env, num_envs, seeds, place.device if place.queued else None, **options)
    if len(seeds) > 1:
        raise UsageError(f"batch_seeds: on a card, seeds of {config.env} are trained one after another")
    return make_in_turns(config.env, num_envs, seeds[0], **options)


def _refusal(env: VecEnv, seeds: int) -> str | None:
    """Why this environment cannot be learned from."""
    if seeds > 1 and isinstance(env, SideBySide) and isinstance(env.parts[0], UnevenVecEnv):
        return f"batch_seeds: games of {env.spec.name} take turns of their own; train its seeds one after another"
    return None
