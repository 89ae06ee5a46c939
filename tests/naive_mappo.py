"""K-MAPPO once more, as plainly as possible: modules, deep copies, one agent after another, restore after each level.

It shares no formula with the package. Fed with the package's rollouts, it must arrive at the same parameters.
"""

import copy

import torch
from torch import Tensor, nn

from kpg_fast.rollout import map_tensors


class NaiveNetwork(nn.Module):
    """FC-ReLU-(GRU or FC)-ReLU-FC on rows of [input | one-hot id], one row and one step at a time in the formulas."""

    def __init__(self, parameters: dict[str, Tensor], g: int) -> None:
        super().__init__()
        for name, value in parameters.items():
            self.register_parameter(name.replace(".", "_"), nn.Parameter(value[g].detach().clone()))

    def forward(self, x: Tensor, hidden: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, R, I], hidden [R, H], reset [T, R] -> outputs [T, R, O], hiddens [T, R, H]."""
        w_in = torch.cat([self.in_w, self.in_id]) if hasattr(self, "in_id") else self.in_w
        y = torch.relu(x @ w_in + self.in_b)
        hiddens = []
        if hasattr(self, "gru_w_x"):
            h, size = hidden, self.gru_b_n.shape[0]
            for t in range(len(y)):
                h = torch.where(reset[t][:, None], torch.zeros_like(h), h)
                from_input, from_hidden = y[t] @ self.gru_w_x + self.gru_b_x, h @ self.gru_w_h
                r = torch.sigmoid(from_input[:, :size] + from_hidden[:, :size])
                z = torch.sigmoid(from_input[:, size : 2 * size] + from_hidden[:, size : 2 * size])
                n = torch.tanh(from_input[:, 2 * size :] + r * (from_hidden[:, 2 * size :] + self.gru_b_n))
                h = (1 - z) * n + z * h
                hiddens.append(h)
            y = torch.stack(hiddens)
        y = torch.relu(y @ self.mid_w + self.mid_b)
        return y @ self.out_w + self.out_b, torch.stack(hiddens) if hiddens else y


class NaiveMappo:
    """Holds its own networks and optimisers; ``update`` takes a whole rollout and the minibatches' environments."""

    def __init__(self, trainer, levels: int, level1_others: str = "base") -> None:
        self.s, self.levels, self.level1_others = trainer.config.settings, levels, level1_others
        actor, critic = trainer.actor, trainer.critic
        self.shared, self.n = actor.shared, actor.num_agents
        self.actors = [NaiveNetwork(actor.learner.theta, g) for g in range(actor.learner.groups)]
        self.critic = NaiveNetwork(critic.learner.theta, 0)
        self.optimizers = [self._optimizer(a) for a in self.actors]
        self.critic_optimizer = self._optimizer(self.critic)
        self.moments = torch.zeros(3, dtype=torch.float64)  # running mean and square of the returns, their weight
        self.seen = {"obs": [], "state": []}
        spec = trainer.env.spec
        self.moving = torch.from_numpy(spec.action_high > spec.action_low).double() if spec.continuous else None

    def scale(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the critic's units."""
        if not self.s.value_norm or self.moments[2] == 0:
            return torch.tensor(0.0), torch.tensor(1.0)
        mean, square = self.moments[:2] / self.moments[2]
        return mean, (square - mean**2).clamp(min=0.01).sqrt()

    def _optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        kinds = {
            "adam": lambda p: torch.optim.Adam(p, self.s.lr, eps=1e-5),
            "rmsprop": lambda p: torch.optim.RMSprop(p, self.s.lr, alpha=0.99, eps=1e-5),
            "sgd": lambda p: torch.optim.SGD(p, self.s.lr),
        }
        return kinds[self.s.optimizer](module.parameters())

    def actor_of(self, agent: int, actors: list[NaiveNetwork]) -> NaiveNetwork:
        return actors[0] if self.shared else actors[agent]

    def log_probs(self, actors, data, hidden, agent) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy [T, E] of one agent; hidden [T=0: E, N, H]."""
        obs, eye = data.obs[:-1, :, agent], torch.eye(self.n, dtype=torch.float64)
        net = self.actor_of(agent, actors)
        if hasattr(net, "in_id"):
            obs = torch.cat([obs, eye[agent].expand(*obs.shape[:2], self.n)], -1)
        logits, _ = net(obs, hidden[:, agent], data.reset[:-1])
        if self.moving is not None:
            normal, moving = torch.distributions.Normal(logits, net.log_std.exp()), self.moving[agent]
            return (normal.log_prob(data.action[:, :, agent]) * moving).sum(-1), (normal.entropy() * moving).sum(-1)
        logits = logits.masked_fill(~data.avail_actions[:-1, :, agent], -1e10)
        log_pi = torch.log_softmax(logits, -1)
        chosen = log_pi.gather(-1, data.action[:, :, agent, None].long())[..., 0]
        return chosen, -(log_pi.exp() * log_pi).sum(-1)

    def values(self, shared: Tensor, hidden: Tensor, reset: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        """State [T, E, S], hidden [E, N, H], alive [T, E, N] -> values [T, E, N], hiddens [T, E, N, H]."""
        columns, hiddens = [], []
        for agent in range(self.n):
            state = shared * alive[..., agent, None] if self.s.death_mask else shared
            one_hot = torch.eye(self.n, dtype=torch.float64)[agent].expand(*state.shape[:2], self.n)
            v, h = self.critic(torch.cat([state, one_hot], -1), hidden[:, agent], reset)
            columns.append(v[..., 0])
            hiddens.append(h)
        return torch.stack(columns, 2), torch.stack(hiddens, 2)

    def advantages(self, data, critic_hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            mean, deviation = self.scale()
            scaled, hiddens = self.values(data.state, critic_hidden, data.reset, data.alive)
            values = scaled * deviation + mean
            steps = data.reward.shape[0]
            advantage, following = torch.zeros_like(values[:-1]), torch.zeros_like(values[0])
            for t in reversed(range(steps)):
                for e in range(data.reward.shape[1]):
                    next_value = values[t + 1, e]
                    if data.terminated[t, e]:
                        next_value = torch.zeros_like(next_value)
                    elif data.truncated[t, e]:
                        state, stay = data.last_state[t, e][None, None], torch.zeros(1, 1, dtype=torch.bool)
                        alive = data.alive[t, e][None, None]
                        next_value = self.values(state, hiddens[t, e][None], stay, alive)[0][0, 0] * deviation + mean
                    over = data.terminated[t, e] | data.truncated[t, e]
                    delta = data.reward[t, e] + self.s.gamma * next_value - values[t, e]
                    carried = torch.zeros_like(delta) if over else following[e]
                    advantage[t, e] = delta + self.s.gamma * self.s.gae_lambda * carried
                following = advantage[t]
        self.critic_hiddens = hiddens
        return scaled[:-1], advantage, advantage + values[:-1]

    def step(self, module: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in module.parameters()))
        if norm > self.s.max_grad_norm:
            for p in module.parameters():
                p.grad *= self.s.max_grad_norm / norm
        optimizer.step()

    def clipped(self, ratio_own: Tensor, m: Tensor, advantage: Tensor) -> Tensor:
        eps = self.s.clip_eps
        if self.s.clip_mode == "own":
            return m * torch.minimum(ratio_own * advantage, ratio_own.clamp(1 - eps, 1 + eps) * advantage)
        if self.s.clip_mode == "double":
            m = m.clamp(1 - self.s.clip_eps_others, 1 + self.s.clip_eps_others)
        ratio = ratio_own * m
        return torch.minimum(ratio * advantage, ratio.clamp(1 - eps, 1 + eps) * advantage)

    def update_minibatch(self, data, hidden, critic_hidden, value_old, advantage, returns) -> None:
        counted = data.alive[:-1] if self.s.mask_dead or self.moving is not None else torch.ones_like(data.alive[:-1])
        mask = data.valid[..., None] & counted
        count = mask.sum()
        mean = advantage[mask].mean()
        advantage = (advantage - mean) / (advantage[mask].std(correction=0) + 1e-8)
        theta = copy.deepcopy(self.actors)
        states = [copy.deepcopy(o.state_dict()) for o in self.optimizers]
        others = copy.deepcopy(self.actors) if self.level1_others == "current" else None
        for k in range(1, self.levels + 1):
            agents_of = [range(self.n)] if self.shared else [[i] for i in range(self.n)]
            for g, agents in enumerate(agents_of):
                loss = 0.0
                for i in agents:
                    log_pi, entropy = self.log_probs(self.actors, data, hidden, i)
                    log_m = torch.zeros_like(log_pi)
                    for j in range(self.n):
                        if j != i and others is not None:
                            with torch.no_grad():
                                log_ratio = self.log_probs(others, data, hidden, j)[0] - data.log_prob[:, :, j]
                                log_m = log_m + torch.where(data.alive[:-1, :, j], log_ratio, 0.0)
                    ratio = torch.exp(log_pi - data.log_prob[:, :, i])
                    gain = self.clipped(ratio, torch.exp(log_m), advantage[:, :, i]) + self.s.ent_coef * entropy
                    loss = loss - gain[mask[:, :, i]].sum() / count
                self.step(self.actors[g], self.optimizers[g], loss)
            if k < self.levels:
                others = copy.deepcopy(self.actors)
                for g, actor in enumerate(self.actors):  # back to theta and to the optimiser before this level
                    actor.load_state_dict(theta[g].state_dict())
                    self.optimizers[g].load_state_dict(copy.deepcopy(states[g]))
        values, _ = self.values(data.state[:-1], critic_hidden, data.reset[:-1], data.alive[:-1])
        if self.s.death_mask:
            mask = data.valid[..., None].expand_as(mask)
        if self.s.value_norm:
            now = torch.stack([returns[mask].mean(), (returns[mask] ** 2).mean(), torch.tensor(1.0)])
            self.moments = 0.99999 * self.moments + 0.00001 * now
        mean, deviation = self.scale()
        returns = (returns - mean) / deviation
        clipped = value_old + (values - value_old).clamp(-self.s.clip_eps, self.s.clip_eps)
        loss = 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)[mask].mean()
        self.step(self.critic, self.critic_optimizer, self.s.vf_coef * loss)

    def update(self, data, hidden: Tensor, critic_hidden: Tensor, minibatches: list[Tensor], lr: float) -> None:
        """``data``: the whole rollout in float64; hidden, critic_hidden: [E, N, H]."""
        for optimizer in [*self.optimizers, self.critic_optimizer]:
            optimizer.param_groups[0]["lr"] = lr
        if self.s.input_norm:
            raw, data = data, self.in_own_units(data)
            self.seen["obs"].append(raw.obs[:-1][raw.alive[:-1] & raw.valid[..., None]])
            self.seen["state"].append(raw.state[:-1][raw.valid])
        value, advantage, returns = self.advantages(data, critic_hidden)
        if self.s.chunk_length:
            starts = self.starts(data, hidden)
            for samples in minibatches:
                self.update_chunks(data, starts, critic_hidden, [value, advantage, returns], samples)
            return
        for envs in minibatches:
            part = map_tensors(data, lambda x, envs=envs: x[:, envs])
            parts = [x[:, envs] for x in (value, advantage, returns)]
            self.update_minibatch(part, hidden[envs], critic_hidden[envs], *parts)

    def in_own_units(self, data):
        """Observations and states less the mean of all those of earlier rollouts, over their deviation."""
        result = copy.copy(data)
        for name, kind in (("obs", "obs"), ("state", "state"), ("last_state", "state")):
            x = getattr(data, name)
            if self.seen[kind]:
                past = torch.cat(self.seen[kind])
                x = (x - past.mean(0)) / (past.std(0, correction=0) + 0.01)
            setattr(result, name, x.clamp(-10, 10))
        return result

    def starts(self, data, hidden: Tensor) -> Tensor:
        """The actors' hidden states [T, E, N, H] before every step of the rollout."""
        if not self.s.recurrent:
            return hidden.expand(len(data.reward), *hidden.shape)
        columns, eye = [], torch.eye(self.n, dtype=torch.float64)
        for agent in range(self.n):
            obs, net = data.obs[:-1, :, agent], self.actor_of(agent, self.actors)
            if hasattr(net, "in_id"):
                obs = torch.cat([obs, eye[agent].expand(*obs.shape[:2], self.n)], -1)
            with torch.no_grad():
                after = net(obs, hidden[:, agent], data.reset[:-1])[1]
            columns.append(torch.cat([hidden[None, :, agent], after[:-1]]))
        return torch.stack(columns, 2)

    def update_chunks(self, data, starts, critic_hidden, arrays: list[Tensor], samples: Tensor) -> None:
        """One minibatch of stretches; number c * E + e is the c-th of environment e."""
        length, envs = self.s.chunk_length, data.reward.shape[1]
        places = [(int(sample) // envs * length, int(sample) % envs) for sample in samples]
        critic_starts = torch.cat([critic_hidden[None], self.critic_hiddens]) if self.s.recurrent else starts
        part = copy.copy(data)
        for name, value in vars(data).items():
            if isinstance(value, Tensor):
                more = len(value) - len(data.reward)
                setattr(part, name, torch.stack([value[t : t + length + more, e] for t, e in places], 1))
        cut = [torch.stack([x[t : t + length, e] for t, e in places], 1) for x in arrays]
        begin, critic_begin = (torch.stack([x[t, e] for t, e in places]) for x in (starts, critic_starts))
        self.update_minibatch(part, begin, critic_begin, *cut)
