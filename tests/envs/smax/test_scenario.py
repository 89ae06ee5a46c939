"""Names make armies; a name that cannot be read says which letters there are."""

import pytest

from kpg_fast.envs import make
from kpg_fast.envs.smax import Scenario, find_scenario, names, register_scenario
from kpg_fast.errors import UsageError

# allies, enemies, actions of an ally, sizes of the observation and of the world state, in JaxMARL 0.2.0
JAXMARL = {
    "3m": (3, 3, 8, 75, 72),
    "8m": (8, 8, 13, 205, 192),
    "25m": (25, 25, 30, 647, 600),
    "2s3z": (5, 5, 10, 127, 120),
    "3s5z": (8, 8, 13, 205, 192),
    "5m_vs_6m": (5, 6, 11, 140, 132),
    "10m_vs_11m": (10, 11, 16, 270, 252),
    "27m_vs_30m": (27, 30, 35, 738, 684),
    "3s5z_vs_3s6z": (8, 9, 14, 218, 204),
    "3s_vs_5z": (3, 5, 10, 101, 96),
    "6h_vs_8z": (6, 8, 13, 179, 168),
    "smacv2_5_units": (5, 5, 10, 127, 120),
    "smacv2_10_units": (10, 10, 15, 257, 240),
    "smacv2_20_units": (20, 20, 25, 517, 480),
}


def test_the_fourteen_have_their_sizes():
    assert set(names()) >= set(JAXMARL)
    for name, (allies, enemies, actions, obs, state) in JAXMARL.items():
        spec = make(f"smax/{name}", 1).spec
        assert (spec.num_agents, spec.num_actions, spec.obs_size, spec.state_size) == (allies, actions, obs, state)
        assert find_scenario(name).num_enemies == enemies
        assert find_scenario(name).random_types == name.startswith("smacv2")


@pytest.mark.parametrize(
    ("name", "allies", "enemies"),
    [
        ("2s3z_vs_9h", (2, 2, 3, 3, 3), (5,) * 9),
        ("6z_vs_24zg", (3,) * 6, (4,) * 24),
        ("1M1zg2z", (1, 4, 3, 3), (1, 4, 3, 3)),
        ("10m_vs_1M", (0,) * 10, (1,)),
    ],
)
def test_any_army_can_be_written(name, allies, enemies):
    scenario = find_scenario(name)
    assert (scenario.ally_types, scenario.enemy_types) == (allies, enemies)
    assert not scenario.random_positions


@pytest.mark.parametrize("name", ["2s3", "3x", "", "m3", "0m", "3m_vs_", "_vs_3m", "3m_vs_3m_vs_3m", "3m 3z", "2s3zz"])
def test_unreadable_names_list_the_letters(name):
    with pytest.raises(UsageError, match="zg zergling"):
        find_scenario(name)


def test_near_names_are_offered():
    with pytest.raises(UsageError, match=r"did you mean .*27m_vs_30m"):
        find_scenario("27m_v_30m")


@pytest.mark.parametrize("name", ["2000m", "3m_vs_1022z", "99999999999999999999m", "smacv2_99999999999999_units"])
def test_too_many_units_are_refused(name):
    with pytest.raises(UsageError, match="at most 1024"):
        find_scenario(name)


def test_registered_scenarios_are_found():
    mine = Scenario("ambush", (0, 0), (3,), random_positions=True)
    register_scenario(mine)
    assert make("smax/ambush", 2).scenario == mine
    with pytest.raises(UsageError, match="taken"):
        register_scenario(Scenario("3m", (0,), (0,)))
