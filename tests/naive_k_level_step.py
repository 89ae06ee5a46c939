"""Algorithm 1 as a plain loop over any modules and optimisers, and a small game to put it to.

It shares no line with the package: modules and optimisers are copied for every level, and the last copies are kept.
"""

import copy

import torch
from torch import nn

N, ROWS, OBS, ACTIONS = 3, 12, 5, 4


def naive_k_level_step(modules, optimizers, loss, anticipate, levels, level1_others="base"):
    """Algorithm 1 in place, in the plainest way."""

    def seen(trial):
        with torch.no_grad():
            return copy.deepcopy(anticipate(trial))

    others = seen(copy.deepcopy(modules)) if level1_others == "current" else None
    for k in range(1, levels + 1):
        trial, trial_optimizers = copy.deepcopy((modules, optimizers))
        for optimizer in trial_optimizers:
            optimizer.zero_grad()
        loss(trial, others, k).backward()
        for optimizer in trial_optimizers:
            optimizer.step()
        if k < levels:
            others = seen(trial)
    return trial, trial_optimizers


class Actor(nn.Module):
    def __init__(self, norm=False, frozen=False, dropout=0.0):
        super().__init__()
        self.body = nn.Linear(OBS, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(8, ACTIONS)
        if frozen:
            self.body.requires_grad_(False)

    def forward(self, obs):
        return self.head(self.drop(torch.tanh(self.norm(self.body(obs))))).log_softmax(-1)


def batch(seed):
    g = torch.Generator().manual_seed(seed)
    obs = torch.randn(N, ROWS, OBS, generator=g, dtype=torch.float64)
    action = torch.randint(ACTIONS, (N, ROWS), generator=g)
    log_prob_old = -torch.rand(N, ROWS, generator=g, dtype=torch.float64) - 1
    advantage = torch.randn(N, ROWS, generator=g, dtype=torch.float64)
    return obs, action, log_prob_old, advantage


def functions(seed, n_modules):
    """PPO's surrogate with the others' ratios; an actor an agent, or one for all."""
    obs, action, log_prob_old, advantage = batch(seed)

    def log_prob(modules):
        policies = list(modules) * (N if n_modules == 1 else 1)
        rows = [policies[i](obs[i]).gather(1, action[i][:, None])[:, 0] for i in range(N)]
        return torch.stack(rows)

    def loss(own_modules, others, k):
        log_ratio = log_prob(own_modules) - log_prob_old
        if others is not None:
            seen = others - log_prob_old
            log_ratio = log_ratio + seen.sum(0) - seen
        ratio = log_ratio.exp()
        return -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()

    return loss, log_prob


def actors_and_optimizers(shared, optimizer, one_optimizer=False, **actor_options):
    torch.manual_seed(0)
    modules = [Actor(**actor_options).double() for _ in range(1 if shared else N)]
    if one_optimizer:
        return modules, [optimizer([p for m in modules for p in m.parameters()])]
    return modules, [optimizer(module.parameters()) for module in modules]
