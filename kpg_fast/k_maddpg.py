"""K-MADDPG: MADDPG (Lowe et al., arXiv 1706.02275) whose actors anticipate the others' updates (kpg.py).

    J_i = E_D[ Q_i(s, a_1, .., mu_{theta_i}(o_i), .., a_n) ],    a_j = mu_{theta_j^(k-1)}(o_j), in the replay at level 1

All n evaluations with one live agent are one pass of n * R rows.
"""

import torch
from torch import Tensor

from kpg_fast.envs import EnvSpec
from kpg_fast.networks.mlp import Mlp
from kpg_fast.off_policy.actor import Own, grouped
from kpg_fast.off_policy.experience import Batch
from kpg_fast.off_policy.settings import OffPolicy
from kpg_fast.off_policy.update import OffPolicyAlgorithm, Slope, td_targets


class KMaddpg(OffPolicyAlgorithm[None]):
    """Centralised critics Q_i(s, a_1..a_n), one for each agent or one for all."""

    def __init__(
        self,
        spec: EnvSpec,
        settings: OffPolicy,
        levels: int,
        inputs: int,
        dtype: torch.dtype,
        debug_drift: bool = False,
        precision: str = "fp32",
        device: torch.device | None = None,
    ) -> None:
        super().__init__(spec, settings, levels, inputs, dtype, debug_drift, precision, device)
        s, groups = settings, 1 if settings.shared_critic else spec.num_agents
        self.q = Mlp(spec.state_size + spec.num_agents * spec.num_actions, s.hidden, 1, precision)
        self.critic = self.critic_learner(self.q.shapes(), groups)

    def initialise_critic(self, generator: torch.Generator) -> None:
        """See :class:`OffPolicyAlgorithm`."""
        self.q.initialise(self.critic.theta, generator)

    def critic_gradient(self, batch: Batch) -> dict[str, Tensor]:
        """See :class:`OffPolicyAlgorithm`; each critic's loss is the mean square of its temporal difference."""
        x = self._joint("next", batch.next_state, self.actor.target_actions(batch))
        q_next = self.q.forward(self.critic.views("target"), x, self.buffers, "q").y[..., 0]
        targets = td_targets(batch, q_next, self.settings.gamma, self.settings.td_lambda)
        p = self.critic.theta
        tape = self.q.forward(p, self._joint("now", batch.state, batch.action), self.buffers, "q")
        error = tape.y[..., 0] - targets
        deltas = self.q.deltas(p, tape, (2 * batch.weight * error)[..., None], self.buffers, "critic")
        self.q.gradient(tape, deltas, self.critic.views("grad"))
        loss, q_mean = ((batch.weight * value).sum(-1).mean() for value in (error.square(), tape.y[..., 0]))
        return {"critic_loss": loss, "q_mean": q_mean}

    def prepare(self, batch: Batch, own: Own) -> None:
        """Nothing of the critics is the same at two levels."""

    def level_one_others(self, batch: Batch, own: Own, prepared: None) -> Tensor:
        """The replay's actions [N, R, A], or the current policies'."""
        return batch.action if self.settings.level1_others == "base" else own.action

    def slope(self, batch: Batch, own: Own, prepared: None, others: Tensor) -> Slope:
        """See :class:`OffPolicyAlgorithm`; ``others`` are actions [N, R, A]."""
        p, n = self.critic.theta, self.spec.num_agents
        x = self._one_live(batch.state, own.action, others)
        tape = self.q.forward(p, grouped(x, p), self.buffers, "q")
        back = self.q.deltas(p, tape, torch.ones_like(tape.y), self.buffers, "critic")
        unit = torch.bmm(back.h1.view(n, -1, self.settings.hidden), self._own_inputs().mT)
        # a shared actor learns from the mean over agents, an actor of its own from its own value
        weight = batch.weight / n if self.settings.shared_actor else batch.weight
        return Slope(unit, weight.expand(n, -1), is_fixed=False)

    def respond(self, batch: Batch, action: Tensor) -> Tensor:
        """The actions themselves."""
        return action

    def _joint(self, name: str, state: Tensor, action: Tensor) -> Tensor:
        """Critics' inputs [1, R, S + N A]: the state and everyone's actions [N, R, A]."""
        s, rows = self.spec.state_size, state.shape[0]
        x = self.buffers(f"joint.{name}", rows, s + action.shape[0] * action.shape[2])
        x[:, :s] = state
        x[:, s:].view(rows, *action.shape[::2]).copy_(action.transpose(0, 1))
        return x[None]

    def _one_live(self, state: Tensor, own: Tensor, others: Tensor) -> Tensor:
        """Critics' inputs [N, R, S + N A]: for agent i its own action, and the others' from ``others``."""
        (n, rows, a), s = own.shape, self.spec.state_size
        x = self.buffers("one_live", n, rows, s + n * a)
        x[..., :s] = state
        joint = x[..., s:].view(n, rows, n, a)
        joint.copy_(others.transpose(0, 1))
        joint.diagonal(dim1=0, dim2=2).copy_(own.permute(1, 2, 0))
        return x

    def _own_inputs(self) -> Tensor:
        """The rows of the critics' first layer that agent i's own action enters by, [N, A, H]."""
        n, s = self.spec.num_agents, self.spec.state_size
        w = self.critic.theta["in.w"][:, s:]
        rows = w.view(len(w), n, -1, w.shape[-1])  # [G, N, A, H]
        own: Tensor = rows[0] if len(rows) == 1 else rows.diagonal(dim1=0, dim2=1).permute(2, 0, 1)
        return own
