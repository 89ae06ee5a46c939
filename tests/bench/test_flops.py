import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.flops import Training, passes
from bench.plain_mappo import PlainNetwork
from kpg_fast.config import Config


def test_passes_are_those_torch_counts():
    config = Config.make("k-mappo", "smax/3m", num_envs=4, num_minibatches=2)
    network = Training.of(config).actor
    steps, rows = 7, 6
    plain = PlainNetwork(network.in_size, network.hidden, network.out_size)
    x, hidden = torch.randn(steps, rows, network.in_size), torch.zeros(rows, network.hidden, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        y = plain(x, hidden, torch.zeros(steps, rows, dtype=torch.bool))
    with FlopCounterMode(display=False) as backward:
        torch.autograd.backward(y.sum())
    counted = passes(network, steps * rows, steps * rows)
    assert counted.forward == forward.get_total_flops()
    assert counted.backward == backward.get_total_flops()


@pytest.mark.parametrize("levels", [1, 3])
def test_a_level_is_a_pass_and_the_way_back(levels):
    made = [Training.of(Config.make("k-mappo", "smax/3m", levels=k)) for k in (levels, levels + 1)]
    s = made[0].config.k_mappo
    per_minibatch = s.num_envs * s.num_steps // s.num_minibatches
    assert made[1].update() - made[0].update() == sum(made[0].of_actors(per_minibatch))
    per_step = s.num_epochs * sum(made[0].of_actors(1))
    assert made[1].env_step() - made[0].env_step() == pytest.approx(per_step)
