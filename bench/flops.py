"""How many floating-point operations K-MAPPO's products take; one of m x k by k x n takes 2 m k n of them.

Counted is what the algorithm asks for: an own forward pass that all levels share, a backward pass a level, and a
forward pass wherever the others' new policies are looked at. Rows whose gradient is zero count as any other.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from kpg_fast.config import Config
from kpg_fast.envs import make
from kpg_fast.k_mappo_trainer import build_actor, build_critic
from kpg_fast.networks.actor_critic import Network
from kpg_fast.place import CPU


class Passes(NamedTuple):
    """Operations of a network's pass over some rows, and of the way back, which ends at the first layer's weights."""

    forward: int
    backward: int


def passes(network: Network, rows: int, rows_of_input: int) -> Passes:
    """``rows`` of agents, whose inputs (but the id) are only ``rows_of_input`` different ones."""
    h = network.hidden
    entry = 2 * rows_of_input * network.in_size * h
    rest = 2 * rows * (h * h + h * network.out_size + (6 * h * h if network.recurrent else 0))
    return Passes(entry + rest, entry + 2 * rest)


@dataclass(frozen=True)
class Training:
    """A configuration of K-MAPPO with its networks."""

    config: Config
    agents: int
    actor: Network
    critic: Network

    @classmethod
    def of(cls, config: Config) -> "Training":
        """Builds the environment once, for its sizes."""
        env = make(config.env, 1, **config.options())
        env.close()
        actor = build_actor(config, env.spec, torch.float32)
        critic = build_critic(config, env.spec, torch.float32, (config.seed,), CPU)
        return cls(config, env.spec.num_agents, actor.network, critic.network)

    def of_actors(self, env_steps: int) -> Passes:
        """The actors' passes over so many environment steps."""
        return passes(self.actor, env_steps * self.agents, env_steps * self.agents)

    def of_critic(self, env_steps: int) -> Passes:
        """The critic's."""
        return passes(self.critic, env_steps * self.agents, env_steps)

    def update(self) -> int:
        """Operations of a minibatch: K levels of the actors, and the critic."""
        s = self.config.k_mappo
        env_steps = s.num_envs * s.num_steps // s.num_minibatches
        return self.config.levels * sum(self.of_actors(env_steps)) + sum(self.of_critic(env_steps))

    def env_step(self) -> float:
        """Operations of a step of an environment: its share of a rollout and of all that is learned from it."""
        s = self.config.k_mappo
        rollout = s.num_envs * s.num_steps
        collected = self.of_actors(rollout).forward + self.of_critic(rollout + s.num_envs).forward
        return (collected + s.num_epochs * s.num_minibatches * self.update()) / rollout
