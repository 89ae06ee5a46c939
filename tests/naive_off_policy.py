"""K-MADDPG and K-FACMAC once more, as plainly as possible: one sample, one agent after another, deep copies, autograd.

Only the networks' containers come from elsewhere (tests/naive_mappo.py). A sample is a dictionary of one episode of L
steps: obs [L+1, N, O], state [L+1, S], avail [L+1, N, A] or None, action [L, N] or [L, N, A], reward [L],
terminated [L]; a transition is an episode of one step.
"""

import copy

import torch
from torch import Tensor, nn

from tests.naive_mappo import NaiveNetwork


class NaiveMixer(nn.Module):
    """QMIX's mixer on one state and one vector of utilities."""

    def __init__(self, views: dict[str, Tensor], hyper_hidden: int, monotonic: bool) -> None:
        super().__init__()
        self.y, self.monotonic = hyper_hidden, monotonic
        for name, value in views.items():
            self.register_parameter(name.replace(".", "_"), nn.Parameter(value[0].detach().clone()))

    def forward(self, q: Tensor, state: Tensor) -> Tensor:
        m, y = self.v_w.shape[0], self.y
        first = state @ self.state_w + self.state_b
        w1 = (torch.relu(first[:y]) @ self.w1_w + self.w1_b).view(len(q), m)
        w2 = torch.relu(first[y : 2 * y]) @ self.w2_w + self.w2_b
        v = torch.relu(first[2 * y : 2 * y + m]) @ self.v_w + self.v_b
        if self.monotonic:
            w1, w2 = w1.abs(), w2.abs()
        hidden = torch.nn.functional.elu(q @ w1 + first[2 * y + m :])
        return hidden @ w2 + v[0]


class Naive:
    """Holds its own networks, targets and optimisers, begun where the package's are."""

    def __init__(self, algorithm) -> None:
        self.s, self.spec, self.levels = algorithm.settings, algorithm.spec, algorithm.levels
        self.n, self.facmac = self.spec.num_agents, hasattr(algorithm, "mixer")
        theta = algorithm.actor.learner.theta
        self.actors = [NaiveNetwork(theta, g) for g in range(algorithm.actor.learner.groups)]
        self.mixer = None
        if self.facmac:
            views = algorithm.critic.theta
            utility = {k.removeprefix("utility."): v[0] for k, v in views.items() if k.startswith("utility.")}
            mixer = {k.removeprefix("mixer."): v for k, v in views.items() if k.startswith("mixer.")}
            self.critics = [NaiveNetwork(utility, g) for g in range(algorithm.groups)]
            self.mixer = NaiveMixer(mixer, self.s.hyper_hidden, self.s.mixer == "monotonic")
        else:
            self.critics = [NaiveNetwork(algorithm.critic.theta, g) for g in range(algorithm.critic.groups)]
        self.learned = [*self.actors, *self.critics, *([self.mixer] if self.mixer else [])]
        self.targets = copy.deepcopy(self.learned)
        self.optimizers = [self.optimizer(a.parameters(), self.s.lr) for a in self.actors]
        if self.facmac:
            together = nn.ModuleList([*self.critics, self.mixer])
            self.critic_optimizers = [(together, self.optimizer(together.parameters(), self.s.critic_lr))]
        else:
            self.critic_optimizers = [(c, self.optimizer(c.parameters(), self.s.critic_lr)) for c in self.critics]
        self.updates = 0

    def optimizer(self, parameters, lr):
        return {
            "adam": lambda: torch.optim.Adam(parameters, lr, eps=self.s.adam_eps),
            "rmsprop": lambda: torch.optim.RMSprop(parameters, lr, alpha=0.99, eps=self.s.rmsprop_eps),
            "sgd": lambda: torch.optim.SGD(parameters, lr),
        }[self.s.optimizer]()

    def step(self, module, optimizer):
        norm = torch.sqrt(sum((p.grad**2).sum() for p in module.parameters()))
        if norm > self.s.max_grad_norm:
            for p in module.parameters():
                p.grad *= self.s.max_grad_norm / norm
        optimizer.step()

    # -- what agents do ------------------------------------------------------------------------------------------

    def one_hot(self, index, size):
        return torch.eye(size, dtype=torch.float64)[index.long()]

    def stored_action(self, sample, t):
        """[N, A]"""
        action = sample["action"][t]
        return action if self.spec.continuous else self.one_hot(action, self.spec.num_actions)

    def outputs(self, actors, sample, agent, steps):
        """Network outputs [steps, A] of one agent along an episode."""
        net = actors[agent % len(actors)]
        rows = []
        for t in range(steps):
            x = sample["obs"][t, agent]
            if self.s.last_action:
                last = self.stored_action(sample, t - 1)[agent] if t else torch.zeros(self.spec.num_actions)
                x = torch.cat([x, last])
            if self.s.agent_id:
                x = torch.cat([x, torch.eye(self.n, dtype=torch.float64)[agent]])
            rows.append(x)
        x = torch.stack(rows)[:, None]
        y, _ = net(x, torch.zeros(1, self.s.hidden, dtype=torch.float64), torch.zeros(steps, 1, dtype=torch.bool))
        return y[:, 0]

    def act(self, actors, sample, agent, steps, noise=None):
        """Actions [steps, A]; ``noise`` [steps, A] makes a discrete one straight-through Gumbel-softmax."""
        y = self.outputs(actors, sample, agent, steps)
        if self.spec.continuous:
            moving = torch.as_tensor(self.spec.action_high > self.spec.action_low)[agent]
            return torch.where(moving, torch.tanh(y), torch.zeros_like(y))
        y = torch.where(sample["avail"][:steps, agent] > 0, y, torch.full_like(y, -1e10))
        if noise is None:
            return self.one_hot(y.argmax(-1), self.spec.num_actions)
        soft = torch.softmax(y + noise, -1)
        hard = self.one_hot(soft.argmax(-1), self.spec.num_actions)
        return hard.detach() + soft - soft.detach()

    # -- what critics say ----------------------------------------------------------------------------------------

    def value(self, critics, mixer, sample, t, actions, agent=None):
        """Q_tot, or agent's Q_i, at step t of one sample, for joint actions [N, A]."""
        if mixer is None:
            x = torch.cat([sample["state"][t], actions.flatten()])
            return self.q(critics[agent % len(critics)], x)
        utilities = [
            self.q(critics[i % len(critics)], torch.cat([sample["obs"][t, i], actions[i]])) for i in range(self.n)
        ]
        return mixer(torch.stack(utilities), sample["state"][t])

    def q(self, net, x):
        return net(x[None, None], torch.zeros(1, self.s.hidden), torch.zeros(1, 1, dtype=torch.bool))[0][0, 0, 0]

    def lambda_return(self, sample, q_next, t):
        """The mixture of n-step returns, written out."""
        length, total, weights = len(sample["reward"]), 0.0, 0.0
        for n in range(1, length - t + 1):
            n_step = sum(self.s.gamma**k * sample["reward"][t + k] for k in range(n))
            n_step = n_step + self.s.gamma**n * (1 - sample["terminated"][t + n - 1]) * q_next[t + n - 1]
            last = n == length - t
            weight = self.s.td_lambda ** (n - 1) * (1 if last else 1 - self.s.td_lambda)
            total, weights = total + weight * n_step, weights + weight
        assert abs(weights - 1) < 1e-12
        return total

    # -- learning ------------------------------------------------------------------------------------------------

    def update(self, samples, noise):
        """``noise``: [N, T, B, A] for T the longest sample, or None."""
        self.update_critics(samples)
        self.update_actors(samples, noise)
        self.updates += 1
        for net, target in zip(self.learned, self.targets, strict=True):
            for p, p_target in zip(net.parameters(), target.parameters(), strict=True):
                if self.s.target_interval == 0:
                    p_target.data = (1 - self.s.tau) * p_target.data + self.s.tau * p.data
                elif self.updates % self.s.target_interval == 0:
                    p_target.data = p.data.clone()

    def update_critics(self, samples):
        count = sum(len(sample["reward"]) for sample in samples)
        target_actors = self.targets[: len(self.actors)]
        target_critics = self.targets[len(self.actors) :][: len(self.critics)]
        target_mixer = self.targets[-1] if self.facmac else None
        loss = 0.0
        for sample in samples:
            length = len(sample["reward"])
            acts = torch.stack([self.act(target_actors, sample, i, length + 1) for i in range(self.n)], 1)
            for critic in [None] if self.facmac else range(len(self.critics)):
                with torch.no_grad():
                    q_next = [
                        self.value(target_critics, target_mixer, sample, t + 1, acts[t + 1], critic)
                        for t in range(length)
                    ]
                for t in range(length):
                    q = self.value(self.critics, self.mixer, sample, t, self.stored_action(sample, t), critic)
                    loss = loss + (q - self.lambda_return(sample, q_next, t).detach()) ** 2 / count
        for _, optimizer in self.critic_optimizers:
            optimizer.zero_grad()
        loss.backward()
        for module, optimizer in self.critic_optimizers:
            self.step(module, optimizer)

    def update_actors(self, samples, noise):
        theta = copy.deepcopy(self.actors)
        states = [copy.deepcopy(o.state_dict()) for o in self.optimizers]
        shared = len(self.actors) == 1
        previous = copy.deepcopy(self.actors) if self.facmac or self.s.level1_others == "current" else None
        for k in range(1, self.levels + 1):
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            losses = [self.actor_loss(samples, noise, agent, previous) for agent in range(self.n)]
            # MADDPG with one actor for all takes the mean over agents
            sum(losses).backward() if self.facmac or not shared else (sum(losses) / self.n).backward()
            for actor, optimizer in zip(self.actors, self.optimizers, strict=True):
                self.step(actor, optimizer)
            if k < self.levels:
                previous = copy.deepcopy(self.actors)
                for actor, optimizer, before, state in zip(self.actors, self.optimizers, theta, states, strict=True):
                    actor.load_state_dict(before.state_dict())
                    optimizer.load_state_dict(copy.deepcopy(state))

    def actor_loss(self, samples, noise, agent, previous):
        """Minus agent's value, it alone live, with the regulariser's part of it."""
        count, loss = sum(len(sample["reward"]) for sample in samples), 0.0
        for b, sample in enumerate(samples):
            length = len(sample["reward"])
            heard = [None if noise is None else noise[i, :length, b] for i in range(self.n)]
            live = self.act(self.actors, sample, agent, length, heard[agent])
            for t in range(length):
                joint = []
                for j in range(self.n):
                    if j == agent:
                        joint.append(live[t])
                    elif previous is None:
                        joint.append(self.stored_action(sample, t)[j])
                    else:
                        joint.append(self.act(previous, sample, j, length, heard[j])[t].detach())
                loss = loss - self.value(self.critics, self.mixer, sample, t, torch.stack(joint), agent) / count
                small = live[t]
                if not self.spec.continuous:
                    logits = self.outputs(self.actors, sample, agent, length)[t]
                    small = torch.where(sample["avail"][t, agent] > 0, logits, torch.zeros_like(logits))
                loss = loss + self.s.actor_reg * self.mean_square(small, agent) / count
        return loss

    def mean_square(self, action, agent):
        moving = torch.ones(self.n, self.spec.num_actions)
        if self.spec.continuous:
            moving = torch.as_tensor(self.spec.action_high > self.spec.action_low)
        if len(self.actors) > 1:
            return (action**2).sum() / moving[agent].sum()
        # one actor: the mean is over all agents' actuators; MADDPG's mean over agents is taken by the caller
        return (action**2).sum() / moving.sum() * (1 if self.facmac else self.n)
