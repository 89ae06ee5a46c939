"""K-MAPPO as it is usually written: torch modules, autograd, one agent after another, deep copies and restores.

It is the implementation that a level's cost is compared with: correct (a test holds it to ours), sensible (one call
per step and agent of torch's fused GRU cell, no work done twice within a level), not slowed on purpose.
"""

import copy

import torch
from torch import Tensor, nn

from kpg_fast.k_mappo_levels import normalise
from kpg_fast.k_mappo_trainer import KMappoTrainer
from kpg_fast.minibatch import Minibatch


class PlainNetwork(nn.Module):
    """FC-ReLU-GRU-FC-ReLU-FC with torch's modules."""

    def __init__(self, in_size: int, hidden: int, out_size: int) -> None:
        super().__init__()
        self.entry = nn.Linear(in_size, hidden)
        self.cell = nn.GRUCell(hidden, hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.exit = nn.Linear(hidden, out_size)

    def forward(self, x: Tensor, hidden: Tensor, reset: Tensor) -> Tensor:
        """x [T, R, I], hidden [R, H], reset [T, R] -> [T, R, out]."""
        stay = (~reset).to(x.dtype).unsqueeze(-1)
        outputs = []
        for x_t, stay_t in zip(torch.relu(self.entry(x)).unbind(0), stay.unbind(0), strict=True):
            hidden = self.cell(x_t, hidden * stay_t)
            outputs.append(hidden)
        y: Tensor = self.exit(torch.relu(self.middle(torch.stack(outputs))))
        return y

    def load_flat(self, p: dict[str, Tensor], g: int) -> None:
        """Copy parameter set ``g`` of one of our recurrent networks."""
        with torch.no_grad():
            weight = torch.cat([p["in.w"][g], p["in.id"][g]]) if "in.id" in p else p["in.w"][g]
            self.entry.weight.copy_(weight.T)
            self.entry.bias.copy_(p["in.b"][g])
            self.cell.weight_ih.copy_(p["gru.w_x"][g].T)
            self.cell.bias_ih.copy_(p["gru.b_x"][g])
            self.cell.weight_hh.copy_(p["gru.w_h"][g].T)
            self.cell.bias_hh.zero_()
            self.cell.bias_hh[-len(p["gru.b_n"][g]) :].copy_(p["gru.b_n"][g])
            # JaxMARL's cell has one bias a gate where torch's has two
            keep = torch.zeros_like(self.cell.bias_hh)
            keep[-len(p["gru.b_n"][g]) :] = 1
            self.cell.bias_hh.register_hook(lambda grad: grad * keep)
            for layer, name in ((self.middle, "mid"), (self.exit, "out")):
                layer.weight.copy_(p[f"{name}.w"][g].T)
                layer.bias.copy_(p[f"{name}.b"][g])


class PlainKMappo:
    """The update of a single seed's minibatch (``Minibatch.seed``): separate or shared actors, K levels, the critic."""

    def __init__(self, trainer: KMappoTrainer) -> None:
        self.config, self.s = trainer.config, trainer.config.k_mappo
        actor, critic = trainer.actor, trainer.critic
        self.shared, self.n, dtype = actor.shared, actor.num_agents, trainer.dtype
        network = actor.network
        self.actors = [
            PlainNetwork(network.in_size, network.hidden, network.out_size).to(trainer.place.device, dtype)
            for _ in range(actor.learner.groups)
        ]
        for g, module in enumerate(self.actors):
            module.load_flat(actor.learner.theta, g)
        self.critic = PlainNetwork(critic.network.in_size + self.n, critic.network.hidden, 1)
        self.critic.to(trainer.place.device, dtype)
        self.critic.load_flat(critic.learner.theta, 0)
        self.optimizers = [torch.optim.Adam(m.parameters(), self.s.lr, eps=1e-5) for m in self.actors]
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), self.s.lr, eps=1e-5)

    def _log_policy(self, actors: list[PlainNetwork], batch: Minibatch, agent: int) -> tuple[Tensor, Tensor]:
        data = batch.data
        module = actors[0] if self.shared else actors[agent]
        hidden = batch.hidden[0, :, agent] if self.shared else batch.hidden[agent, :, 0]
        logits = module(data.obs[:-1, :, agent], hidden, data.reset[:-1])
        logits = logits.masked_fill(~data.avail_actions[:-1, :, agent], -1e10)
        log_policy = torch.log_softmax(logits, -1)
        chosen = log_policy.gather(-1, data.action[:, :, agent, None].long()).squeeze(-1)
        return chosen, -(log_policy.exp() * log_policy).sum(-1)

    def _agent_loss(self, batch: Minibatch, agent: int, log_m: Tensor | None, advantage: Tensor) -> Tensor:
        log_prob, entropy = self._log_policy(self.actors, batch, agent)
        log_ratio = log_prob - batch.data.log_prob[:, :, agent]
        ratio = torch.exp(log_ratio if log_m is None else log_ratio + log_m)
        eps = self.s.clip_eps
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - eps, 1 + eps) * advantage)
        weight = batch.mask[:, :, agent].to(gain.dtype)
        return -((gain + self.s.ent_coef * entropy) * weight).sum() / batch.mask.sum()

    def _step(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        nn.utils.clip_grad_norm_(module.parameters(), self.s.max_grad_norm)
        optimizer.step()

    def update_actor(self, batch: Minibatch) -> None:
        """K levels, each from the parameters and optimiser states before the first."""
        advantage = normalise(batch.advantage[None], batch.mask[None])[0]
        before = [copy.deepcopy(module.state_dict()) for module in self.actors]
        states = [copy.deepcopy(optimizer.state_dict()) for optimizer in self.optimizers]
        others: list[Tensor] = []
        for k in range(1, self.config.levels + 1):
            if k > 1:
                for g, module in enumerate(self.actors):
                    module.load_state_dict(before[g])
                    self.optimizers[g].load_state_dict(copy.deepcopy(states[g]))
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            for i in range(self.n):
                log_m = torch.stack([x for j, x in enumerate(others) if j != i]).sum(0) if others else None
                torch.autograd.backward(self._agent_loss(batch, i, log_m, advantage[:, :, i]))
            for module, optimizer in zip(self.actors, self.optimizers, strict=True):
                self._step(module, optimizer)
            if k < self.config.levels:
                others = self._anticipate(batch)

    @torch.no_grad()
    def _anticipate(self, batch: Minibatch) -> list[Tensor]:
        log_ratios = []
        for j in range(self.n):
            log_ratio = self._log_policy(self.actors, batch, j)[0] - batch.data.log_prob[:, :, j]
            log_ratios.append(torch.where(batch.data.alive[:-1, :, j], log_ratio, 0.0))
        return log_ratios

    def update_critic(self, batch: Minibatch) -> None:
        """One step towards the returns with value clipping."""
        data = batch.data
        state = data.state[:-1, :, None].expand(-1, -1, self.n, -1)
        one_hot = torch.eye(self.n, dtype=state.dtype, device=state.device).expand(*state.shape[:3], self.n)
        rows = torch.cat([state, one_hot], -1).flatten(1, 2)
        reset = data.reset[:-1].repeat_interleave(self.n, 1)
        values = self.critic(rows, batch.critic_hidden[0].flatten(0, 1), reset).view_as(batch.value)
        eps = self.s.clip_eps
        clipped = batch.value + (values - batch.value).clamp(-eps, eps)
        losses = torch.maximum((values - batch.returns) ** 2, (clipped - batch.returns) ** 2)
        weight = batch.mask.to(losses.dtype)
        self.critic_optimizer.zero_grad()
        torch.autograd.backward(self.s.vf_coef * 0.5 * (losses * weight).sum() / weight.sum())
        self._step(self.critic, self.critic_optimizer)

    def update(self, batch: Minibatch) -> None:
        """Actors and critic once."""
        self.update_actor(batch)
        self.update_critic(batch)
