"""The terminal: what a command tells, as text or as JSON; colours where they carry meaning; bars that suit a log."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeAlias, final

from tqdm import tqdm

EVERY_S = 60.0  # from line to line of a bar in a log
RED, GREEN, YELLOW = 31, 32, 33
# Where a line of text says whether something is well: how the cap's row ends, and what casts doubt.
MEANINGS = (
    (re.compile(r"(?<=  )holds$", re.MULTILINE), GREEN),
    (re.compile(r"(?<=  )broken$", re.MULTILINE), RED),
    (re.compile(r"^ *doubt:(?= )", re.MULTILINE), YELLOW),
)


@dataclass(frozen=True)
class Told:
    """What a command tells: `text` for people, which `str` gives, and the same as `facts`, JSON types, for programs."""

    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text


def told(text: str, facts: Mapping[str, Any]) -> Told:
    """Whatever the facts are made of becomes JSON types."""
    return Told(text, plain(facts))


def plain(value: Any) -> Any:
    """As JSON types: paths as text, and None for numbers that JSON has not, such as a cap that is not set."""
    if isinstance(value, Mapping):
        return {str(key): plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [plain(own) for own in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def document(command: str, facts: Mapping[str, Any]) -> str:
    """One JSON document of what a command tells."""
    return json.dumps({"command": command, **facts}, indent=1, allow_nan=False)


def coloured(stream: TextIO) -> bool:
    """Whether a stream takes colours: a terminal, unless the environment says otherwise (https://no-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return os.environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, colour: int, stream: TextIO) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if coloured(stream) else text


def painted(text: str, stream: TextIO) -> str:
    """The text with colours on what holds, what is broken and what is in doubt."""
    for pattern, colour in MEANINGS if coloured(stream) else ():
        text = pattern.sub(paint(r"\g<0>", colour, stream), text)
    return text


def bar(items: Iterable[Any] | None = None, *, progress: bool = True, **how: Any) -> Bar:
    """The only way to a progress bar, so that none floods a log: there it is a line a minute, and one at the end."""
    if progress and not sys.stderr.isatty():
        return Log(items, desc=how.get("desc", ""), total=how.get("total"), leave=how.get("leave", True))
    return tqdm(items, disable=not progress, **how)


@final
class Log:
    """What of tqdm is of use in a log."""

    def __init__(self, items: Iterable[Any] | None, *, desc: str, total: int | None, leave: bool):
        self.n, self.total, self._items, self._desc, self._leave = 0, total, items, desc, leave
        self._began = self._told = time.monotonic()
        self._postfix = ""
        if total is None and hasattr(items, "__len__"):
            self.total = len(items)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        with self:
            for item in self._items or ():
                yield item
                self.update()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        """What went wrong tells of itself."""
        if kind is None and self._leave and self.n:
            self._tell()

    def update(self, more: int = 1) -> None:
        self.n += more
        if time.monotonic() - self._told >= EVERY_S and self.n != self.total:
            self._tell()

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self._postfix = text

    def _tell(self) -> None:
        self._told = time.monotonic()
        of = f" of {self.total}" if self.total else ""
        rest = f", {self._postfix}" if self._postfix else ""
        print(f"{self._desc}: {self.n}{of}, {self._told - self._began:.0f} s{rest}", file=sys.stderr, flush=True)


Bar: TypeAlias = tqdm | Log
