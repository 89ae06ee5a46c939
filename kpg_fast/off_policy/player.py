"""Acting with off-policy actors: greedy for evaluation, with noise for experience."""

import numpy as np
import torch
from torch import Tensor

from kpg_fast.action_distribution import scaled
from kpg_fast.kernels.policy.ref import UNAVAILABLE
from kpg_fast.minibatch import per_env
from kpg_fast.off_policy.actor import Actor, FeedForward, Recurrent, moving_actuators
from kpg_fast.off_policy.experience import Experience
from kpg_fast.place import CPU, Fetched, Place, Staged, pinned


class Player:
    """The actors on E running environments, with what recurrence needs of the past (a ``rollout.Policy``).

    Where the place is ``hosted``, the networks alone are on its device: they are sent their inputs and asked for their
    outputs, and the host makes actions of these, with its own random numbers.
    """

    def __init__(self, actor: Actor, experience: Experience, num_envs: int, place: Place = CPU) -> None:
        self.actor, self.experience = actor, experience
        spec, dtype = actor.spec, actor.learner.dtype
        self.moving = moving_actuators(spec, dtype)
        self._sent, self._fetched = Staged(place.device) if place.hosted else None, Fetched()
        outputs = spec.num_agents * num_envs * spec.num_actions
        self._answers = pinned((outputs,), dtype) if place.hosted else torch.empty(0)
        self.last_action = torch.zeros(spec.num_agents, num_envs, spec.num_actions, dtype=dtype)
        rows = num_envs * spec.num_agents // actor.learner.groups
        net = actor.network
        self.hidden = torch.empty(0)
        if isinstance(net, Recurrent):
            self.hidden = net.net.hidden_state(actor.learner.groups, rows, dtype, place.device)
        if spec.action_low is not None and spec.action_high is not None:
            self.low, self.high = torch.from_numpy(spec.action_low), torch.from_numpy(spec.action_high)

    def act(
        self, obs: Tensor, avail_actions: Tensor, reset: Tensor, counter: int, greedy: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Greedy actions as the replay keeps them; there are no log-probabilities (nan)."""
        y = self.outputs(obs, reset)
        if self.actor.spec.continuous:
            action = torch.tanh(y) * self.moving
        else:
            action = _one_hot(_masked(y, avail_actions).argmax(-1), y)
        self.last_action = action
        return self.for_replay(action), torch.full(obs.shape[:2], torch.nan)

    def explore(
        self, envs: Tensor, obs: Tensor, avail_actions: Tensor, reset: Tensor, generator: torch.Generator, step: int
    ) -> Tensor:
        """Actions to learn from, as the replay keeps them: float [e, N, A] in [-1, 1], or int indices [e, N].

        Args:
            envs: int64 [e], who acts; the rest is theirs.
            obs: [e, N, O].
            avail_actions: bool [e, N, A].
            reset: bool [e], true where an episode begins.
            generator: every random number comes from it.
            step: environment steps done so far.
        """
        s, y = self.actor.settings, self.outputs(obs, reset, envs)
        at_random = step < s.start_steps
        if self.actor.spec.continuous:
            if at_random:
                action = torch.empty_like(y).uniform_(-1, 1, generator=generator)
            else:
                noise = torch.empty_like(y).normal_(generator=generator)
                action = (torch.tanh(y) + s.act_noise * noise).clamp_(-1, 1)
            action = action * self.moving
        else:
            progress = min(step / s.epsilon_steps, 1.0) if s.epsilon_steps else 1.0
            epsilon = 1.0 if at_random else s.epsilon_start + progress * (s.epsilon_finish - s.epsilon_start)
            usable = avail_actions.transpose(0, 1).to(y.dtype)
            policy = torch.softmax(_masked(y, avail_actions), -1)
            mixed = (1 - epsilon) * policy * usable + epsilon * usable / usable.sum(-1, keepdim=True)
            drawn = torch.multinomial(mixed.flatten(0, 1), 1, generator=generator).view(y.shape[:2])
            action = _one_hot(drawn, y)
        self.last_action[:, envs] = action
        return self.for_replay(action)

    def outputs(self, obs: Tensor, reset: Tensor, envs: Tensor | slice = slice(None)) -> Tensor:
        """What the networks say for ``envs``, [N, e, A]."""
        last_action = None
        if self.actor.settings.last_action:
            last_action = self.last_action[:, envs].masked_fill(reset[:, None], 0)
        x = self.experience.actor_inputs(obs, last_action)
        if self._sent is None:
            return self._asked(x, reset, envs)
        assert isinstance(envs, Tensor)
        arrays = {"x": x.transpose(0, 1).numpy(), "reset": reset.numpy(), "envs": envs.numpy()}
        sent = self._sent.send(arrays, np.arange(len(envs)))
        y = self._asked(sent["x"].transpose(0, 1), sent["reset"], sent["envs"])
        # in the order of the outputs' memory, in which random numbers are drawn for them
        answer = self._answers.as_strided(y.shape, y.stride())
        self._fetched.fetch([(y, answer)])
        self._fetched.wait()
        return answer

    def _asked(self, x: Tensor, reset: Tensor, envs: Tensor | slice) -> Tensor:
        """What the networks say at inputs [N, e, I], all on their device."""
        p, net = self.actor.learner.theta, self.actor.network
        if isinstance(net, FeedForward):
            return net(p, x, 1, "actor.act")[0]
        rows = self.actor.spec.num_agents // self.actor.learner.groups
        with torch.no_grad():
            y, after = net.step(p, x, per_env(self.hidden, rows)[:, envs].flatten(1, 2), reset)
        per_env(self.hidden, rows)[:, envs] = per_env(after, rows)
        return y

    def for_replay(self, action: Tensor) -> Tensor:
        """[N, E, A] -> what the replay keeps."""
        if self.actor.spec.continuous:
            return action.transpose(0, 1).float().contiguous()
        return action.argmax(-1).T.int().contiguous()

    def for_env(self, action: Tensor) -> Tensor:
        """What the replay keeps -> what the environment takes."""
        if not self.actor.spec.continuous:
            return action
        return scaled(action, self.low, self.high)

    def tensors(self) -> dict[str, Tensor]:
        """The past, for an exact resume."""
        return {"player/last_action": self.last_action, "player/hidden": self.hidden}


def _masked(y: Tensor, avail_actions: Tensor) -> Tensor:
    return y.masked_fill(~avail_actions.transpose(0, 1), -UNAVAILABLE)


def _one_hot(index: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_(-1, index[..., None], 1)
