"""Our client against what the unmodified smac and smacv2 made of the same games (`record.py`), on the stand-in."""

import numpy as np
import pytest
from smac_episodes import CASES, GOLDEN, SEED, compare, play

pytest.importorskip("s2clientprotocol.sc2api_pb2", reason="pip install 'kpg_fast[smac]'")
pytest.importorskip("websocket", reason="pip install 'kpg_fast[smac]'")

from kpg_fast.envs.smac import make_env


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("case", CASES)
def test_native_client_equals_the_unmodified_libraries(case, game, golden):
    scenario, options = CASES[case]
    env = make_env(scenario, 1, SEED, client="native", stagger=0.0, **options)
    try:
        compare(case, play(env, np.random.default_rng(SEED)), golden)
    finally:
        env.close()
