"""Colours where they are wanted, bars that suit a log, facts that are JSON."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest

from edgemeta import terminal


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "colours"),
    [
        (Tty, {}, True),
        (io.StringIO, {}, False),
        (Tty, {"NO_COLOR": "1"}, False),
        (Tty, {"NO_COLOR": ""}, True),  # an empty one says nothing: https://no-color.org
        (Tty, {"TERM": "dumb"}, False),
        (io.StringIO, {"FORCE_COLOR": "1"}, True),
        (io.StringIO, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(monkeypatch, stream, environment, colours):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    text = "latency  0.06 ms  holds\nRAM  9 KiB  broken\ndoubt: a busy machine\na class called holds"
    painted = terminal.painted(text, stream())
    assert (painted != text) == colours
    if colours:
        green, red, yellow, last = painted.splitlines()
        assert green.endswith("  \x1b[32mholds\x1b[0m") and red.endswith("  \x1b[31mbroken\x1b[0m")
        assert yellow == "\x1b[33mdoubt:\x1b[0m a busy machine" and last == "a class called holds"


def test_a_log_has_a_line_for_each_step_and_none_while_it_hurries(monkeypatch, capsys):
    assert list(terminal.bar(["a", "b"], desc="reading")) == ["a", "b"]
    with terminal.bar(total=3, desc="first round") as bar:
        for _ in range(3):
            bar.update()
            bar.set_postfix_str("best 90 %")
    assert capsys.readouterr().err == "reading: 2 of 2, 0 s\nfirst round: 3 of 3, 0 s, best 90 %\n"
    monkeypatch.setattr(terminal, "EVERY_S", 0.0)
    with pytest.raises(ValueError), terminal.bar(total=3, desc="training") as bar:
        bar.update(2)
        raise ValueError("it failed, and says so itself")
    assert capsys.readouterr().err == "training: 2 of 3, 0 s\n"


def test_a_log_has_no_line_of_what_leaves_none(capsys):
    for progress, leave in ((False, True), (True, False)):
        assert list(terminal.bar([1], desc="reading", progress=progress, leave=leave)) == [1]
    assert capsys.readouterr().err == ""


def test_a_terminal_has_bars(monkeypatch):
    monkeypatch.setattr("sys.stderr", Tty())
    assert isinstance(terminal.bar([1], progress=False), terminal.tqdm)


def test_facts_are_json():
    told = terminal.told("text", {"cap": math.inf, "at": Path("a/b"), "rows": ({"x": math.nan, 3: True},)})
    assert str(told) == "text"
    assert told.facts == {"cap": None, "at": "a/b", "rows": [{"x": None, "3": True}]}
    assert json.loads(terminal.document("bench", told.facts)) == {"command": "bench", **told.facts}
