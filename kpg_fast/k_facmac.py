"""K-FACMAC: FACMAC (Peng et al., arXiv 2003.06709) whose actors anticipate the others' updates (kpg.py).

    J_i = E_D[ Q_tot(s, Q_1(o_1, a_1), .., Q_i(o_i, mu_{theta_i}(o_i)), .., Q_n(o_n, a_n)) ]
    a_j = mu_{theta_j^(k-1)}(o_j),  j != i

A live agent changes its own utility alone, so at every level

    d J_i / d a_i = slope_i * d Q_i / d a_i,    slope_i = d Q_tot / d Q_i at (Q_i live, Q_j one level down)

where d Q_i / d a_i does not depend on the level. Level 1 takes the others' current policies, which is FACMAC's joint
gradient.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kpg_fast.envs import EnvSpec
from kpg_fast.kernels.layout import Parameters
from kpg_fast.kernels.mixer import mix, mix_backward, mix_one_live
from kpg_fast.networks.mixer import MixerNetwork, MixerWeights
from kpg_fast.networks.mlp import Mlp, Tape
from kpg_fast.off_policy.actor import Own, grouped
from kpg_fast.off_policy.experience import Batch
from kpg_fast.off_policy.settings import OffPolicy
from kpg_fast.off_policy.update import OffPolicyAlgorithm, Slope, td_targets


class Prepared(NamedTuple):
    """The critics at the own actions; the same at all levels."""

    utility: Tensor  # [N, R]
    direction: Tensor  # [N, R, A]: d Q_i / d a_i
    weights: MixerWeights


class KFacmac(OffPolicyAlgorithm[Prepared]):
    """Utilities Q_i(o_i, a_i) of one shared network or one each, mixed by weights from the state."""

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
        s, self.groups = settings, 1 if settings.shared_critic else spec.num_agents
        self.utility = Mlp(spec.obs_size + spec.num_actions, s.hidden, 1, precision)
        self.mixer = MixerNetwork(spec.state_size, spec.num_agents, s.mixer_hidden, s.hyper_hidden)
        # one parameter set, because FACMAC clips the gradient of critics and mixer by their joint norm
        shapes = {f"utility.{name}": (self.groups, *shape) for name, shape in self.utility.shapes().items()}
        shapes |= {f"mixer.{name}": shape for name, shape in self.mixer.shapes().items()}
        self.critic = self.critic_learner(shapes, 1)
        self.monotonic = s.mixer == "monotonic"
        self._named: dict[str, tuple[Parameters, Parameters]] = {}

    def initialise_critic(self, generator: torch.Generator) -> None:
        """See :class:`OffPolicyAlgorithm`."""
        utility, mixer = self._parameters("theta")
        self.utility.initialise(utility, generator)
        self.mixer.initialise(mixer, generator)

    def critic_gradient(self, batch: Batch) -> dict[str, Tensor]:
        """See :class:`OffPolicyAlgorithm`; the loss is the mean square of Q_tot's temporal difference."""
        targets = self._targets(batch)
        utility, mixer = self._parameters("theta")
        tape = self._utilities(utility, batch.obs, batch.action)
        weights, first = self.mixer.forward(mixer, batch.state, self.buffers, "mixer")
        q = self._by_agent(tape)
        q_tot = mix(q, *weights, self.monotonic)
        error = q_tot - targets
        dq_tot = 2 * batch.weight * error
        dq, dw1, db1, dw2 = mix_backward(dq_tot, q, *weights[:3], self.monotonic)
        into_utility, into_mixer = self._parameters("grad")
        deltas = self.utility.deltas(utility, tape, dq.reshape(tape.y.shape), self.buffers, "critic")
        self.utility.gradient(tape, deltas, into_utility)
        self.mixer.gradient(mixer, batch.state, first, MixerWeights(dw1, db1, dw2, dq_tot), self.buffers, into_mixer)
        return {"critic_loss": (batch.weight * error.square()).sum(), "q_mean": (batch.weight * q_tot).sum()}

    def prepare(self, batch: Batch, own: Own) -> Prepared:
        """See :class:`OffPolicyAlgorithm`."""
        utility, mixer = self._parameters("theta")
        tape = self._utilities(utility, batch.obs, own.action)
        back = self.utility.deltas(utility, tape, torch.ones_like(tape.y), self.buffers, "critic")
        at_action = torch.matmul(back.h1, utility["in.w"][:, self.spec.obs_size :].mT)
        weights, _ = self.mixer.forward(mixer, batch.state, self.buffers, "mixer")
        # cloned: the levels' own evaluations write to the same memory
        return Prepared(self._by_agent(tape).clone(), at_action.view(own.action.shape), weights)

    def level_one_others(self, batch: Batch, own: Own, prepared: Prepared) -> Tensor:
        """The utilities of the current policies."""
        return prepared.utility

    def slope(self, batch: Batch, own: Own, prepared: Prepared, others: Tensor) -> Slope:
        """See :class:`OffPolicyAlgorithm`; ``others`` are utilities [N, R]."""
        _, slope = mix_one_live(prepared.utility, others, *prepared.weights, self.monotonic)
        return Slope(prepared.direction, batch.weight * slope, is_fixed=True)

    def respond(self, batch: Batch, action: Tensor) -> Tensor:
        """The utilities [N, R] of the actions."""
        utility, _ = self._parameters("theta")
        return self._by_agent(self._utilities(utility, batch.obs, action))

    def _targets(self, batch: Batch) -> Tensor:
        utility, mixer = self._parameters("target")
        tape = self._utilities(utility, batch.next_obs, self.actor.target_actions(batch))
        weights, _ = self.mixer.forward(mixer, batch.next_state, self.buffers, "mixer")
        q_next = mix(self._by_agent(tape), *weights, self.monotonic)
        return td_targets(batch, q_next, self.settings.gamma, self.settings.td_lambda)

    def _utilities(self, p: Parameters, obs: Tensor, action: Tensor) -> Tape:
        o = self.spec.obs_size
        x = self.buffers("utility.x", *action.shape[:2], o + action.shape[2])
        x[..., :o] = obs[..., :o]
        x[..., o:] = action
        return self.utility.forward(p, grouped(x, p), self.buffers, "utility")

    def _by_agent(self, tape: Tape) -> Tensor:
        return tape.y.view(self.spec.num_agents, -1)

    def _parameters(self, slot: str) -> tuple[Parameters, Parameters]:
        """Those of the utilities [G, ...] and of the mixer [1, ...]."""
        if slot not in self._named:
            views = self.critic.views(slot)
            utility = {name[8:]: view[0] for name, view in views.items() if name.startswith("utility.")}
            self._named[slot] = utility, {name[6:]: view for name, view in views.items() if name.startswith("mixer.")}
        return self._named[slot]
