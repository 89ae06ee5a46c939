"""K-MADDPG and K-FACMAC as they are usually written: torch modules, autograd, one agent after another, deep copies.

It is the implementation that an update's time is compared with: correct (a test holds it to ours), sensible (critics
take no gradient while actors learn, the others' actions are computed once a level), not slowed on purpose. Transitions
and continuous actions, a network an agent or one for all.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kpg_fast.k_facmac import KFacmac
from kpg_fast.k_maddpg import KMaddpg
from kpg_fast.off_policy.experience import Batch


def network(p: dict[str, Tensor], g: int) -> nn.Sequential:
    """Parameter set ``g`` of one of our perceptrons, in modules."""
    layers: list[nn.Module] = []
    for name in ("in", "mid", "out"):
        layers += [_linear(p[f"{name}.w"][g], p[f"{name}.b"][g]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class PlainMixer(nn.Module):
    """QMIX's mixer."""

    def __init__(self, p: dict[str, Tensor], hyper_hidden: int, monotonic: bool) -> None:
        super().__init__()
        y, m = hyper_hidden, p["v.w"].shape[1]
        self.monotonic, parts = monotonic, p["state.w"][0].split((y, y, m, m), 1)
        biases = p["state.b"][0].split((y, y, m, m))
        self.first = nn.ModuleList(_linear(w, b) for w, b in zip(parts, biases, strict=True))
        self.second = nn.ModuleList(_linear(p[f"{name}.w"][0], p[f"{name}.b"][0]) for name in ("w1", "w2", "v"))

    def forward(self, q: Tensor, state: Tensor) -> Tensor:
        """q [B, N], state [B, S] -> [B]."""
        w1, w2, v = (second(F.relu(first(state))) for first, second in zip(self.first, self.second, strict=False))
        if self.monotonic:
            w1, w2 = w1.abs(), w2.abs()
        hidden = F.elu(torch.bmm(q[:, None], w1.view(len(q), q.shape[1], -1)) + self.first[3](state)[:, None])
        mixed: Tensor = torch.bmm(hidden, w2[..., None])[:, 0, 0] + v[:, 0]
        return mixed


def _linear(w: Tensor, b: Tensor) -> nn.Linear:
    layer = nn.Linear(w.shape[0], w.shape[1], dtype=w.dtype)
    layer.weight.data.copy_(w.T)
    layer.bias.data.copy_(b)
    return layer


class PlainOffPolicy:
    """The update of one minibatch, begun with our parameters."""

    def __init__(self, ours: KMaddpg | KFacmac) -> None:
        self.s, self.levels, self.n, self.ours = ours.settings, ours.levels, ours.spec.num_agents, ours
        theta = ours.actor.learner.theta
        self.actors = nn.ModuleList(network(theta, g) for g in range(ours.actor.learner.groups))
        if isinstance(ours, KFacmac):
            views = ours.critic.theta
            utility = {k.removeprefix("utility."): v[0] for k, v in views.items() if k.startswith("utility.")}
            mixer = {k.removeprefix("mixer."): v for k, v in views.items() if k.startswith("mixer.")}
            self.critics = nn.ModuleList(network(utility, g) for g in range(ours.groups))
            self.critics.append(PlainMixer(mixer, self.s.hyper_hidden, ours.monotonic))
        else:
            self.critics = nn.ModuleList(network(ours.critic.theta, g) for g in range(ours.critic.groups))
        self.factored = isinstance(ours, KFacmac)
        self.target_actors, self.target_critics = copy.deepcopy(self.actors), copy.deepcopy(self.critics)
        self.actor_optimizers = [self._optimizer(actor, self.s.lr) for actor in self.actors]
        together = [self.critics] if self.factored else list(self.critics)
        self.critic_optimizers = [(critic, self._optimizer(critic, self.s.critic_lr)) for critic in together]

    def _optimizer(self, module: nn.Module, lr: float) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(module.parameters(), lr, alpha=0.99, eps=self.s.rmsprop_eps)

    def _step(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        torch.nn.utils.clip_grad_norm_(module.parameters(), self.s.max_grad_norm)
        optimizer.step()

    def act(self, actors: nn.ModuleList, obs: Tensor, agent: int) -> Tensor:
        """One agent's actions [B, A]."""
        action: Tensor = torch.tanh(actors[agent % len(actors)](obs[agent])) * self.ours.actor.moving[agent]
        return action

    def value(self, critics: nn.ModuleList, obs: Tensor, state: Tensor, actions: list[Tensor], agent: int) -> Tensor:
        """Q_tot, or an agent's Q_i, for a list of N actions [B, A]."""
        if not self.factored:
            q: Tensor = critics[agent % len(critics)](torch.cat([state, *actions], 1))[:, 0]
            return q
        o = self.ours.spec.obs_size
        utilities = [
            critics[j % (len(critics) - 1)](torch.cat([obs[j, :, :o], actions[j]], 1))[:, 0] for j in range(self.n)
        ]
        mixed: Tensor = critics[-1](torch.stack(utilities, 1), state)
        return mixed

    def update(self, batch: Batch) -> None:
        """Critics once, actors once with K levels, targets once."""
        self.update_critics(batch)
        self.update_actors(batch)
        with torch.no_grad():
            for net, target in ((self.actors, self.target_actors), (self.critics, self.target_critics)):
                for p, p_target in zip(net.parameters(), target.parameters(), strict=True):
                    p_target.lerp_(p, self.s.tau)

    def update_critics(self, batch: Batch) -> None:
        """One step of every critic."""
        with torch.no_grad():
            after = [self.act(self.target_actors, batch.next_obs, i) for i in range(self.n)]
        loss: Any = 0.0
        for critic in range(len(self.critic_optimizers)):
            with torch.no_grad():
                q_next = self.value(self.target_critics, batch.next_obs, batch.next_state, after, critic)
                target = batch.reward + self.s.gamma * (1 - batch.terminated) * q_next
            q = self.value(self.critics, batch.obs, batch.state, list(batch.action), critic)
            loss = loss + F.mse_loss(q, target)
        for _, optimizer in self.critic_optimizers:
            optimizer.zero_grad()
        loss.backward()
        for module, optimizer in self.critic_optimizers:
            self._step(module, optimizer)

    def update_actors(self, batch: Batch) -> None:
        """K levels from theta, each with the others' actions of the level before."""
        self.critics.requires_grad_(False)
        theta = copy.deepcopy(self.actors.state_dict())
        states = [copy.deepcopy(optimizer.state_dict()) for optimizer in self.actor_optimizers]
        if self.factored or self.s.level1_others == "current":
            with torch.no_grad():
                others = [self.act(self.actors, batch.obs, j) for j in range(self.n)]
        else:
            others = list(batch.action)
        for k in range(1, self.levels + 1):
            for optimizer in self.actor_optimizers:
                optimizer.zero_grad()
            for agent in range(self.n):
                self.agent_loss(batch, agent, others).backward()  # type: ignore[no-untyped-call]
            for actor, optimizer in zip(self.actors, self.actor_optimizers, strict=True):
                self._step(actor, optimizer)
            if k < self.levels:
                with torch.no_grad():
                    others = [self.act(self.actors, batch.obs, j) for j in range(self.n)]
                self.actors.load_state_dict(theta)
                for optimizer, state in zip(self.actor_optimizers, states, strict=True):
                    optimizer.load_state_dict(copy.deepcopy(state))
        self.critics.requires_grad_(True)

    def agent_loss(self, batch: Batch, agent: int, others: list[Tensor]) -> Tensor:
        """Minus the value of one live agent among the others, and the regulariser."""
        own = self.act(self.actors, batch.obs, agent)
        actions = [own if j == agent else other for j, other in enumerate(others)]
        value = self.value(self.critics, batch.obs, batch.state, actions, agent).mean()
        moving = self.ours.actor.moving
        shared = len(self.actors) == 1
        square = own.square().sum(1).mean() / (moving.sum() if shared else moving[agent].sum())
        return -value / (self.n if shared and not self.factored else 1) + self.s.actor_reg * square
