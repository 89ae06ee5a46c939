from pathlib import Path

import pytest

from kpg_fast.runs import provenance


@pytest.fixture
def answers(monkeypatch):
    """What git is asked, by its first argument, and what it answers."""
    said = {"rev-parse": "abc", "status": ""}
    monkeypatch.setattr(provenance, "_git", lambda root, *arguments: said[arguments[0]])
    monkeypatch.setattr(provenance, "checkout", lambda: Path("/a/checkout"))
    monkeypatch.setenv("KPG_COMMIT", "told")
    return said


def test_a_checkout_answers_for_itself(answers):
    assert provenance.commit() == "abc"
    answers["status"] = " M a.py"
    assert provenance.commit() == "abc+changes"


def test_a_copy_without_history_is_told(answers, monkeypatch):
    answers["rev-parse"] = ""
    assert provenance.commit() == "told"
    monkeypatch.setattr(provenance, "checkout", lambda: None)
    assert provenance.commit() == "told"
    for nothing in (lambda: monkeypatch.setenv("KPG_COMMIT", ""), lambda: monkeypatch.delenv("KPG_COMMIT")):
        nothing()
        assert provenance.commit() == "unknown"
