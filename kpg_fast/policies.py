"""Actors and critic of K-MAPPO: networks with parameters, and the recurrent state they are in."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kpg_fast.action_distribution import ActionDistribution
from kpg_fast.minibatch import per_env
from kpg_fast.networks.actor_critic import Network, Trace
from kpg_fast.networks.input_norm import InputNorm
from kpg_fast.networks.value_norm import ValueNorm
from kpg_fast.rollout import Rollout
from kpg_fast.seeds import split
from kpg_fast.store.learner import Learner

_ACTIONS = 2**31  # stream of the draws; SMAX's own under the same seed have their clock there, which never gets so far


class Actor:
    """The policies of all agents, one shared network or one each, with their recurrent state; S seeds side by side.

    Args:
        network: of one agent.
        learner: the parameters, G = S or S * N sets.
        num_agents: N.
        seeds: of the draws; each has as many environments.
        distribution: of the actions.
        norm: of the observations; None: they are seen as they are.
        theta: other parameters than the learner's to act with.
    """

    def __init__(
        self,
        network: Network,
        learner: Learner,
        num_agents: int,
        seeds: Sequence[int],
        distribution: ActionDistribution,
        norm: InputNorm | None = None,
        theta: dict[str, Tensor] | None = None,
    ) -> None:
        self.network, self.learner, self.num_agents, self.seeds = network, learner, num_agents, tuple(seeds)
        self.distribution, self.norm = distribution, norm
        self.theta = learner.theta if theta is None else theta
        self.groups = len(self.theta["out.b"])
        self.shared = self.groups == len(seeds)
        self.hidden = torch.empty(0)

    def begin(self, num_envs: int) -> None:
        """Forget the past of ``num_envs`` environments, all seeds together."""
        seeds, device = len(self.seeds), self.theta["out.b"].device
        rows = num_envs * self.num_agents // self.groups
        self.hidden = self.network.hidden_state(self.groups, rows, self.learner.dtype, device)
        self.start = torch.empty_like(self.hidden)
        each = torch.arange(num_envs // seeds * self.num_agents, device=device).view(-1, self.num_agents)
        self.rows = each.repeat(seeds, 1)  # [S * E, N]: who draws, by each seed's own count
        self.row_seeds = torch.tensor(self.seeds, device=device).repeat_interleave(num_envs // seeds)[:, None]

    def of_seed(self, index: int, num_envs: int) -> "Actor":
        """The policies of one seed, which see what is learned, at the beginning of ``num_envs`` episodes on the CPU.

        From a card their parameters are copies; products in tf32, which a CPU has not, are in float32.
        """
        sets = self.sets_of(index)
        theta = {name: value[sets].cpu() for name, value in self.theta.items()}
        network = replace(self.network, precision="fp32") if self.network.precision == "tf32" else self.network
        norm = self.norm and self.norm.of_seed(index)
        seed = self.seeds[index : index + 1]
        player = Actor(network, self.learner, self.num_agents, seed, self.distribution.cpu(), norm, theta)
        player.begin(num_envs)
        return player

    def initialise(self, index: int, generator: torch.Generator) -> None:
        """Draw the initial parameters of a seed."""
        sets = self.sets_of(index)
        theta = {name: value[sets] for name, value in self.theta.items()}
        self.network.initialise(theta, generator)
        self.distribution.initialise(theta)

    def sets_of(self, index: int) -> slice:
        """The parameter sets of a seed."""
        each = self.groups // len(self.seeds)
        return slice(index * each, (index + 1) * each)

    def per_env(self, hidden: Tensor) -> Tensor:
        """Hidden states [G, R, H] as [S, g, E, R / E, H]."""
        return split(per_env(hidden, self.num_agents if self.shared else 1), 0, len(self.seeds))

    def outputs(
        self, p: dict[str, Tensor], obs: Tensor, hidden: Tensor, reset: Tensor, trace: Trace | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits [S, T, E, N, A] or moments [S, T, E, N, 2A] of observations [S, T, E, N, O], and the hidden states
        [G, T, R, H].

        Args:
            p: parameters.
            obs: observations.
            hidden: [G, R, H] or split as :meth:`per_env` splits it.
            reset: [S, T, E].
            trace: see :class:`kpg_fast.networks.actor_critic.Network`.
        """
        obs = obs if self.norm is None else self.norm(obs)
        rows = obs if self.shared else obs.permute(0, 3, 1, 2, 4).flatten(0, 1).unsqueeze(3)
        if not self.shared and len(reset) > 1:
            reset = reset.repeat_interleave(self.num_agents, 0)
        y, hidden = self.network(p, rows, _joined(hidden), reset, trace=trace)
        return self.distribution.outputs(p, self._per_agent(y)), hidden

    def output_difference(self, p_k: dict[str, Tensor], trace: Trace, shape: torch.Size) -> Tensor:
        """How the outputs [S, T, E, N, .] change from the parameters the trace was taken at (theta) to ``p_k``."""
        d = self.network.difference(self.theta, p_k, trace)
        _, steps, envs, _, _ = shape
        of_distribution = {name: p_k[name] - self.theta[name] for name in self.distribution.shapes()}
        d = self._per_agent(d.view(len(d), steps, envs, -1, self.network.out_size))
        return self.distribution.outputs(of_distribution, d)

    def for_env(self, action: Tensor) -> Tensor:
        """See :class:`kpg_fast.rollout.Policy`."""
        return self.distribution.for_env(action)

    def _per_agent(self, y: Tensor) -> Tensor:
        """[G, T, E, R / E, A] as [S, T, E, N, A]."""
        return y if self.shared else split(y.squeeze(3), 0, len(self.seeds)).permute(0, 2, 3, 1, 4)

    @torch.no_grad()
    def act(
        self, obs: Tensor, avail_actions: Tensor, reset: Tensor, counter: int | Tensor, greedy: bool = False
    ) -> tuple[Tensor, Tensor]:
        """See :class:`kpg_fast.rollout.Policy`; ``counter`` may lie on the device."""
        seeds = len(self.seeds)
        obs, reset = (split(x, 0, seeds)[:, None] for x in (obs.to(self.learner.dtype), reset))
        outputs, hidden = self.outputs(self.theta, obs, self.hidden, reset)
        if self.network.recurrent:
            self.hidden = hidden[:, 0]
        who = (self.row_seeds, self.rows, counter)
        return self.distribution.sample(
            outputs[:, 0].flatten(0, 1), avail_actions, *who, stream=_ACTIONS, greedy=greedy
        )

    @torch.no_grad()
    def act_for(
        self, envs: Tensor, obs: Tensor, avail_actions: Tensor, reset: Tensor, counter: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See :class:`kpg_fast.rollout.Sampler`; for a single seed."""
        hidden = self.per_env(self.hidden)[:, :, envs]
        outputs, after = self.outputs(self.theta, obs.to(self.learner.dtype)[None, None], hidden, reset[None, None])
        if self.network.recurrent:
            self.per_env(self.hidden)[:, :, envs] = self.per_env(after[:, 0])
        who = (self.seeds[0], self.rows[envs], counter[:, None])
        return self.distribution.sample(outputs[0, 0], avail_actions, *who, stream=_ACTIONS)


class Critic:
    """One value function of the state and the agent's id for all agents of a seed; S seeds side by side.

    Args:
        network: of the state and the id.
        learner: its parameters, a set a seed.
        num_agents: N.
        death_mask: show it zeros in place of the state where the agent is dead.
        cuts: how often an environment can be truncated in a rollout, where shapes must not depend on data; None: as
            often as it is.
        norm: in whose units the network's values are; None: in those of the returns.
        state_norm: of the states; None: they are seen as they are.
    """

    def __init__(
        self,
        network: Network,
        learner: Learner,
        num_agents: int,
        death_mask: bool = False,
        norm: ValueNorm | None = None,
        cuts: int | None = None,
        state_norm: InputNorm | None = None,
    ) -> None:
        self.network, self.learner, self.num_agents = network, learner, num_agents
        self.death_mask, self.norm, self.cuts, self.state_norm = death_mask, norm, cuts, state_norm
        self.hidden = torch.empty(0)

    def begin(self, num_envs: int) -> None:
        """Forget the past of ``num_envs`` environments, all seeds together."""
        seeds, device = self.learner.groups, self.learner.theta["out.b"].device
        self.hidden = self.network.hidden_state(seeds, num_envs // seeds * self.num_agents, self.learner.dtype, device)
        self.start = torch.empty_like(self.hidden)

    def initialise(self, index: int, generator: torch.Generator) -> None:
        """Draw the initial parameters of a seed."""
        sets = self.sets_of(index)
        self.network.initialise({name: value[sets] for name, value in self.learner.theta.items()}, generator)

    def sets_of(self, index: int) -> slice:
        """The parameter set of a seed."""
        return slice(index, index + 1)

    def per_env(self, hidden: Tensor) -> Tensor:
        """Hidden states [S, E * N, H] as [S, 1, E, N, H]."""
        return split(per_env(hidden, self.num_agents), 0, self.learner.groups)

    def values(
        self,
        p: dict[str, Tensor],
        state: Tensor,
        hidden: Tensor,
        reset: Tensor,
        alive: Tensor,
        sets: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """Values [S, T, E, N] of states [S, T, E, Z] with alive [S, T, E, N], and the hidden states [S, T, E * N, H];
        ``hidden`` and ``reset`` as of :meth:`Actor.outputs`, ``sets`` the seeds in question.
        """
        state = state if self.state_norm is None else self.state_norm(state, sets)
        present = alive if self.death_mask else None
        y, hidden = self.network(p, state.unsqueeze(3), _joined(hidden), reset, present)
        return y[..., 0], hidden

    @torch.no_grad()
    def evaluate(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """Values [S, T+1, E, N] along a rollout by seed, those of the last states of truncated episodes [S, T, E, N]
        (else 0), and the hidden states [S, T+1, E * N, H].
        """
        dtype = self.learner.dtype
        state, reset, alive = rollout.state.to(dtype), rollout.reset, rollout.alive
        values, hidden = self.values(self.learner.theta, state, self.hidden, reset, alive)
        last = self._cut_values(rollout, values, hidden)
        if self.network.recurrent:
            self.hidden.copy_(hidden[:, -2])  # the state after step T is entered again by the next rollout
        return values, last, hidden

    def _cut_values(self, rollout: Rollout, values: Tensor, hidden: Tensor) -> Tensor:
        """Values [S, T, E, N] of the last states where episodes were truncated."""
        last = torch.zeros_like(values)  # with a step more, for those that were not
        cut = rollout.truncated & rollout.valid  # a void episode is cut whenever something fails
        if self.cuts is None:
            for index, truncated in enumerate(cut):
                t, e = truncated.nonzero(as_tuple=True)
                if len(t):
                    seed = torch.full_like(t, index)
                    last[seed, t, e] = self._values_at(rollout, hidden, slice(index, index + 1), seed, t, e)
        else:
            t = cut_steps(cut, self.cuts)
            seeds, envs = (torch.arange(size, device=t.device) for size in (len(t), t.shape[2]))
            seed, e = seeds[:, None, None].expand_as(t), envs.expand_as(t)
            last[seed, t, e] = self._values_at(rollout, hidden, slice(None), seed, t, e).view(*t.shape, -1)
        return last[:, :-1]

    def _values_at(self, rollout: Rollout, hidden: Tensor, sets: slice, seed: Tensor, t: Tensor, e: Tensor) -> Tensor:
        """Values [places, N] of the last states after steps ``t`` of environments ``e``, all seeds' as many."""
        theta = {name: value[sets] for name, value in self.learner.theta.items()}
        seeds, done = len(theta["out.b"]), t.clamp_max(rollout.truncated.shape[1] - 1)
        at = torch.empty(0)
        if self.network.recurrent:
            at = split(hidden, 2, hidden.shape[2] // self.num_agents)[seed, done, e].view(seeds, -1, hidden.shape[3])
        state = rollout.last_state[seed, done, e].to(self.learner.dtype).view(seeds, 1, -1, rollout.last_state.shape[3])
        # who has died in the last step is not told
        alive = rollout.alive[seed, done, e].view(seeds, 1, -1, self.num_agents)
        goes_on = torch.zeros(seeds, 1, alive.shape[2], dtype=torch.bool, device=t.device)
        return self.values(theta, state, at, goes_on, alive, sets)[0].flatten(0, 2)


def cut_steps(truncated: Tensor, most: int) -> Tensor:
    """The steps [S, most, E] at which environments were truncated [S, T, E], in order; T where there is none more."""
    nth = truncated.cumsum(1)
    found = [((nth == k) & truncated).byte().argmax(1) for k in range(1, most + 1)]
    return torch.stack([torch.where(nth[:, -1] > k, t, truncated.shape[1]) for k, t in enumerate(found)], 1)


def _joined(hidden: Tensor) -> Tensor:
    """Hidden states [S, g, E, R / E, H] as [G, R, H]; others as they are."""
    return hidden.flatten(2, 3).flatten(0, 1) if hidden.dim() == 5 else hidden
