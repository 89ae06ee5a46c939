"""Sizes, names and what is said where something is missing."""

import pytest
from starcraft import install

from kpg_fast.envs.smac import diagnose, make_env, names
from kpg_fast.envs.smac.layout import Layout
from kpg_fast.envs.smac.scenarios import find
from kpg_fast.errors import UsageError

# map: agents, enemies, observation, state, actions, as smac's get_env_info() has them
SIZES = {
    "3m": (3, 3, 30, 48, 9),
    "8m": (8, 8, 80, 168, 14),
    "25m": (25, 25, 250, 950, 31),
    "5m_vs_6m": (5, 6, 55, 98, 12),
    "8m_vs_9m": (8, 9, 85, 179, 15),
    "10m_vs_11m": (10, 11, 105, 243, 17),
    "27m_vs_30m": (27, 30, 285, 1170, 36),
    "MMM": (10, 10, 160, 290, 16),
    "MMM2": (10, 12, 176, 322, 18),
    "2s3z": (5, 5, 80, 120, 11),
    "3s5z": (8, 8, 128, 216, 14),
    "3s5z_vs_3s6z": (8, 9, 136, 230, 15),
    "3s_vs_3z": (3, 3, 36, 54, 9),
    "3s_vs_4z": (3, 4, 42, 61, 10),
    "3s_vs_5z": (3, 5, 48, 68, 11),
    "1c3s5z": (9, 9, 162, 270, 15),
    "2m_vs_1z": (2, 1, 16, 26, 7),
    "corridor": (6, 24, 156, 282, 30),
    "6h_vs_8z": (6, 8, 78, 140, 14),
    "2s_vs_1sc": (2, 1, 17, 27, 7),
    "so_many_baneling": (7, 32, 202, 397, 38),
    "bane_vs_bane": (24, 24, 336, 984, 30),
    "2c_vs_64zg": (2, 64, 332, 342, 70),
    "10gen_protoss_5v5": (5, 5, 92, 130, 11),
    "10gen_protoss_10v10": (10, 10, 182, 310, 16),
    "10gen_protoss_10v11": (10, 11, 191, 327, 17),
    "10gen_protoss_20v20": (20, 20, 362, 820, 26),
    "10gen_protoss_20v23": (20, 23, 389, 901, 29),
    "10gen_terran_5v5": (5, 5, 82, 120, 11),
    "10gen_zerg_10v10": (10, 10, 162, 290, 16),
    "10gen_terran_10v11": (10, 11, 170, 306, 17),
    "10gen_zerg_20v20": (20, 20, 322, 780, 26),
    "10gen_terran_20v23": (20, 23, 346, 858, 29),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_libraries(name):
    scenario = find(name)
    layout = Layout.build(scenario, {}, False, True, native=True)
    sizes = (scenario.n_agents, scenario.n_enemies, layout.obs_size, layout.state_size, layout.n_actions)
    assert sizes == SIZES[name]


def test_every_name_is_found_and_other_team_sizes_too():
    assert len(names()) == 23 + 2 * 15
    for name in names():
        find(name)
    assert find("10gen_zerg_7v9").n_enemies == 9


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("3n", {}, "did you mean 3m"),
        ("10gen_human_5v5", {}, "10gen_RACE_NvM"),
        ("10gen_terran_0v5", {}, "at least one unit"),
        ("3m", {"obs_last_acton": True}, "did you mean obs_last_action"),
        ("3m", {"conic_fov": True}, "unknown option"),
        ("3m", {"client": "nativ"}, "did you mean native"),
        ("3m", {"client": "native", "heuristic_ai": True}, "use client='smac'"),
        ("3m", {"timeout": 0}, "timeout = 0"),
        ("3m", {"max_failures": 0}, "max_failures = 0"),
        ("3m", {"timeout": "long"}, "timeout = 'long': must be a number"),
        ("3m", {"sync": "no"}, "sync = 'no': must be true or false"),
        ("3m", {"step_mul": "8x"}, "step_mul = '8x': must be a number"),
        ("10gen_terran_5v5", {"capability_config": "rich"}, "must be a dictionary"),
        ("3m", {"game_version": "4.11"}, "unknown game version"),
        ("3m", {"game_version": 4.10}, "must be text"),
        ("3m", {"game_version": "4.6.2"}, r"which has builds \[75689\]"),
        ("10gen_terran_5v5", {"client": "native", "capability_config": {"n_units": 5, "n_enemies": 6}}, "disagree"),
        ("10gen_terran_5v5", {"client": "native", "capability_config": {"attack": {}}}, "use client='smac'"),
        ("10gen_terran_5v5", {"client": "native", "obs_instead_of_state": True}, "smacv2 has no"),
    ],
)
def test_what_cannot_be_is_said_plainly(tmp_path, monkeypatch, name, options, message):
    monkeypatch.setenv("SC2PATH", str(install(tmp_path)))
    with pytest.raises(UsageError, match=message):
        make_env(name, 1, **options)


def test_a_missing_game_map_or_library_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("SC2PATH", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"StarCraft II is not at .*nowhere.*SC2PATH"):
        make_env("3m", 1)
    monkeypatch.setenv("SC2PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"Versions/Base"):
        make_env("3m", 1)
    install(tmp_path, maps=False)
    with pytest.raises(UsageError, match=r"needs the map .*3m\.SC2Map.*SMAC_Maps"):
        make_env("3m", 1)
    install(tmp_path)
    monkeypatch.setattr("kpg_fast.envs.smac.installation._importable", lambda module: False)
    with pytest.raises(UsageError, match=r"git\+https://github\.com/oxwhirl/smacv2\.git"):
        make_env("10gen_zerg_5v5", 1)
    with pytest.raises(UsageError, match=r"pip install 'kpg_fast\[smac\]'"):
        make_env("3m", 1, client="native")


def test_the_home_folder_is_where_the_game_is_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("SC2PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match=str(tmp_path / "StarCraftII")):
        make_env("3m", 1)


def test_the_diagnosis_names_what_was_found_and_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("SC2PATH", str(tmp_path / "nowhere"))
    findings = {what: (ok, detail) for what, ok, detail in diagnose()}
    assert not findings["SC2PATH"][0]
    monkeypatch.setenv("SC2PATH", str(install(tmp_path)))
    (tmp_path / "Maps" / "SMAC_Maps" / "corridor.SC2Map").unlink()
    findings = {what: (ok, detail) for what, ok, detail in diagnose()}
    assert findings["version"] == (True, "4.10.0 (build 75689)")
    assert not findings["maps of SMAC"][0]
    assert "22 of 23" in findings["maps of SMAC"][1]
    assert "corridor.SC2Map" in findings["maps of SMAC"][1]
    assert findings["map of SMACv2"][0]
    assert {"client native", "client smac (smac)", "client smac (smacv2)", "protobuf"} <= findings.keys()
