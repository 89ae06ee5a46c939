import pytest

from kpg_fast.envs import StepArrays
from kpg_fast.envs.mamujoco import make_env


@pytest.fixture(autouse=True)
def _mujoco_logs_elsewhere(monkeypatch, tmp_path):
    """MuJoCo writes its warnings to a file in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def start():
    """Make an environment and reset it; everything made is closed."""
    made = []

    def make(name, num_envs=3, seed=0, **options):
        env = make_env(name, num_envs, seed, **options)
        made.append(env)
        out = StepArrays.empty(env.spec)
        env.reset(out)
        return env, out

    yield make
    for env in made:
        env.close()
