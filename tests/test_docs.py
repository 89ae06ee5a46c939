import re
from pathlib import Path

import torch

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_worked_example_runs_and_learns(capsys):
    """The code is taken from the page itself, so the page cannot go stale."""
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "k_level_step.md").read_text(), re.DOTALL)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        exec(compile(code, "k_level_step.md", "exec"), {})
    finally:
        torch.set_num_threads(threads)
    rewards = [float(value) for value in re.findall(r"reward per step (\S+)", capsys.readouterr().out)]
    assert len(rewards) == 3
    assert rewards[-1] > 2 * rewards[0]
    assert rewards[-1] > 0.6
