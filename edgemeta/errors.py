"""Errors a user can act on: each message says what was tried, the nearest answer and the next move, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class EdgemetaError(Exception):
    """Base of every error the user can mend; the CLI prints it as one line and exits with code 2."""


class Infeasible(EdgemetaError):
    """No architecture meets the budget."""


class BadData(EdgemetaError):
    """A data set that cannot give the episodes asked for."""


class BadProfile(EdgemetaError):
    """A device profile that is missing, malformed or of another runtime."""


class BadBundle(EdgemetaError):
    """A bundle whose graphs disagree with torch, or whose files are not what its manifest says."""


class BadConfig(EdgemetaError):
    """A setting that is unknown, of the wrong type or out of range."""


class Diverged(EdgemetaError):
    """A training whose loss stopped being a number; a search marks the trial as failed and goes on.

    `kept` are the last good parameters.
    """

    def __init__(self, message: str, kept: Mapping[str, Any] | None = None):
        super().__init__(message)
        self.kept = dict(kept or {})


def flag(setting: str) -> str:
    """The command-line flag of a setting.

    >>> flag("latency_ms")
    '--latency-ms'
    """
    return "--" + setting.rstrip("_").replace("_", "-")


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name closest to a mistyped one, as an advice.

    >>> nearest("randm", ["evolution", "random"])
    "did you mean 'random'?"
    """
    known = sorted(map(str, known))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean '{close[0]}'?" if close else f"choose one of: {', '.join(known)}"


def first_line(error: BaseException) -> str:
    """The first line of an error that is not ours; its kind where it says nothing.

    >>> first_line(ValueError("cut off\\nat byte 7")), first_line(KeyError())
    ('cut off', 'KeyError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def first_mistake(error: ValidationError, whole: str) -> str:
    """Where pydantic found the first mistake, and what it says of it, in one line; `whole` names what is read."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {' '.join(first['msg'].split())}"
