"""Actors and critic of K-MAPPO: networks with parameters, and the recurrent state they are in."""

import torch
from torch import Tensor

from kpg_fast.kernels.policy import sample
from kpg_fast.minibatch import per_env
from kpg_fast.networks.actor_critic import Network, Trace
from kpg_fast.networks.value_norm import ValueNorm
from kpg_fast.rollout import Rollout
from kpg_fast.store.learner import Learner

_ACTIONS = 2**31  # stream of the draws; SMAX's own under the same seed have their clock there, which never gets so far


class Actor:
    """The policies of all agents: one shared network or one each, with their recurrent state."""

    def __init__(self, network: Network, learner: Learner, num_agents: int, seed: int) -> None:
        self.network, self.learner, self.num_agents, self.seed = network, learner, num_agents, seed
        self.shared = learner.groups == 1
        self.hidden = torch.empty(0)

    def begin(self, num_envs: int) -> None:
        """Forget the past of ``num_envs`` environments."""
        rows = num_envs * self.num_agents // self.learner.groups
        self.hidden = self.network.hidden_state(self.learner.groups, rows, self.learner.dtype)

    def logits(
        self, p: dict[str, Tensor], obs: Tensor, hidden: Tensor, reset: Tensor, trace: Trace | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits [T, E, N, A] of observations [T, E, N, O], and the hidden states [G, T, R, H]."""
        rows = obs[None] if self.shared else obs.permute(2, 0, 1, 3).unsqueeze(3)
        y, hidden = self.network(p, rows, hidden, reset, trace=trace)
        return self._per_agent(y), hidden

    def logit_difference(self, p_k: dict[str, Tensor], trace: Trace, shape: torch.Size) -> Tensor:
        """How the logits [T, E, N, A] change from the parameters the trace was taken at (theta) to ``p_k``."""
        d = self.network.difference(self.learner.theta, p_k, trace)
        steps, envs, _, actions = shape
        return self._per_agent(d.view(len(d), steps, envs, -1, actions))

    def _per_agent(self, y: Tensor) -> Tensor:
        """[G, T, E, R / E, A] as [T, E, N, A]."""
        return y[0] if self.shared else y.squeeze(3).permute(1, 2, 0, 3)

    @torch.no_grad()
    def act(
        self, obs: Tensor, avail_actions: Tensor, reset: Tensor, counter: int, greedy: bool = False
    ) -> tuple[Tensor, Tensor]:
        """See :class:`kpg_fast.rollout.Policy`."""
        obs = obs.to(self.learner.dtype)
        logits, hidden = self.logits(self.learner.theta, obs[None], self.hidden, reset[None])
        if self.network.recurrent:
            self.hidden = hidden[:, 0]
        rows = torch.arange(obs.shape[0] * self.num_agents).view(obs.shape[:2])
        return sample(logits[0], avail_actions, self.seed, rows, counter, stream=_ACTIONS, greedy=greedy)

    @torch.no_grad()
    def act_for(
        self, envs: Tensor, obs: Tensor, avail_actions: Tensor, reset: Tensor, counter: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See :class:`kpg_fast.rollout.Sampler`."""
        rows = self.num_agents // self.learner.groups
        hidden = per_env(self.hidden, rows)[:, envs].flatten(1, 2)
        logits, after = self.logits(self.learner.theta, obs.to(self.learner.dtype)[None], hidden, reset[None])
        if self.network.recurrent:
            self.hidden = self.hidden.clone()  # an update may still need the one it began with
            per_env(self.hidden, rows)[:, envs] = per_env(after[:, 0], rows)
        agents = envs[:, None] * self.num_agents + torch.arange(self.num_agents)
        return sample(logits[0], avail_actions, self.seed, agents, counter[:, None], stream=_ACTIONS)


class Critic:
    """One value function of the state and the agent's id, for all agents.

    Args:
        network: of the state and the id.
        learner: its parameters.
        num_agents: N.
        death_mask: show it zeros in place of the state where the agent is dead.
        norm: in whose units the network's values are; None: in those of the returns.
    """

    def __init__(
        self,
        network: Network,
        learner: Learner,
        num_agents: int,
        death_mask: bool = False,
        norm: ValueNorm | None = None,
    ) -> None:
        self.network, self.learner, self.num_agents = network, learner, num_agents
        self.death_mask, self.norm = death_mask, norm
        self.hidden = torch.empty(0)

    def begin(self, num_envs: int) -> None:
        """Forget the past of ``num_envs`` environments."""
        self.hidden = self.network.hidden_state(1, num_envs * self.num_agents, self.learner.dtype)

    def values(
        self, p: dict[str, Tensor], state: Tensor, hidden: Tensor, reset: Tensor, alive: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Values [T, E, N] of states [T, E, S] with alive [T, E, N], and the hidden states [1, T, E * N, H]."""
        y, hidden = self.network(p, state[None, :, :, None], hidden, reset, alive if self.death_mask else None)
        return y[0, ..., 0], hidden

    @torch.no_grad()
    def evaluate(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """Values [T+1, E, N] along a rollout, those of the last states of truncated episodes [T, E, N] (else 0), and
        the hidden states [1, T+1, E * N, H].
        """
        dtype = self.learner.dtype
        state, reset, alive = rollout.state.to(dtype), rollout.reset, rollout.alive
        values, hidden = self.values(self.learner.theta, state, self.hidden, reset, alive)
        last = torch.zeros_like(values[:-1])
        t, e = rollout.truncated.nonzero(as_tuple=True)
        if len(t):
            state = rollout.last_state[t, e].to(dtype)[None]
            at = self.network.hidden_state(1, len(t) * self.num_agents, dtype)
            if self.network.recurrent:
                at = per_env(hidden[0], self.num_agents)[t, e].flatten(0, 1)[None]
            goes_on = torch.zeros(1, len(t), dtype=torch.bool)
            # who has died in the last step is not told
            last[t, e] = self.values(self.learner.theta, state, at, goes_on, alive[t, e][None])[0][0]
        if self.network.recurrent:
            self.hidden = hidden[:, -2].clone()  # the state after step T is entered again by the next rollout
        return values, last, hidden
