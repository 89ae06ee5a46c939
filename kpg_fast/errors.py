"""Errors a user can act on, and the nearest right spelling for a wrong name."""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """Bad input: the message names the value, what is allowed and the nearest right spelling.

    The command line prints it without a traceback and exits with code 2.
    """


class EnvironmentFailure(RuntimeError):
    """An environment cannot go on (a game that crashes whenever it is started). A run saves its state and stops."""


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> UsageError:
    """Build the error for a name that is not in ``known``.

    Args:
        kind: what the name stands for, e.g. ``"scenario"``.
        name: what was given.
        known: every name that would have been right.
        hint: a last sentence, e.g. how a name is built.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    message = f"unknown {kind} {name!r}"
    if near:
        message += f"; did you mean {' or '.join(near)}?"
    message += f" Known: {', '.join(known)}."
    if hint:
        message += f" {hint}"
    return UsageError(message)
