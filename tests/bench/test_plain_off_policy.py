import pytest
import torch

from bench.off_policy import build
from bench.plain_off_policy import PlainOffPolicy


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("algorithm", ["k-maddpg", "k-facmac"])
def test_plain_implementation_learns_the_same(algorithm, levels, shared):
    values = {"shared_actor": shared, "shared_critic": not shared, "hidden": 7, "max_grad_norm": 1e9}
    ours, batch = build(algorithm, num_agents=3, batch_size=9, levels=levels, dtype=torch.float64, **values)
    plain = PlainOffPolicy(ours)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        ours.update(batch, generator)
        plain.update(batch)
    now = PlainOffPolicy(ours)  # our parameters in modules
    for mine, other in zip([now.actors, now.critics], [plain.actors, plain.critics], strict=True):
        for (name, value), reference in zip(mine.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(value, reference, atol=1e-10, rtol=0, msg=name)
