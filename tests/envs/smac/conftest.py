import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE.parents[1]), str(_HERE)]


@pytest.fixture(scope="session")
def shared_game(tmp_path_factory):
    from starcraft import install

    return install(tmp_path_factory.mktemp("SC2"), ("4.6.2", "4.10.0"))


@pytest.fixture
def game(shared_game, monkeypatch):
    """A stand-in in good health, as SC2PATH."""
    from starcraft import clear_faults

    clear_faults(shared_game)
    monkeypatch.setenv("SC2PATH", str(shared_game))
    return shared_game
