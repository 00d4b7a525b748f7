"""A child process that tells its progress line by line, and ends before we do."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

from edgemeta import terminal

GRACE_S = 10.0  # for a child that was asked to stop: it writes its timings first
LOOK_S = 0.1  # how often a watched child is looked at
MAX_LINE = 64 * 2**20


class Child:
    """A child process in a group of its own: Ctrl-C reaches it once, through us, and it ends before we do.

    It is asked to end where `stop` is set from another thread, and where it has told nothing for `silent_s`.
    """

    def __init__(
        self,
        command: list[str],
        *,
        feed: bytes = b"",
        stop: threading.Event | None = None,
        silent_s: float | None = None,
    ):
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed where the child ends
        pipe = subprocess.PIPE if feed else subprocess.DEVNULL
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            command, stdin=pipe, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True
        )
        self._heard, self._silent_s, self._stop = time.monotonic(), silent_s, stop
        self.silenced = False  # it was ended because it told nothing for too long
        if feed:
            threading.Thread(target=self.say, args=(feed,), daemon=True).start()
        if stop or silent_s:
            threading.Thread(target=self._watch, daemon=True).start()

    def say(self, message: bytes) -> None:
        """Write to the child; one that has ended is noticed by its exit code."""
        stdin: IO[bytes] | None = self._process.stdin
        with contextlib.suppress(OSError, ValueError):
            if stdin:
                stdin.write(message)
                stdin.flush()

    def lines(self) -> Iterator[str]:
        assert self._process.stdout
        while line := self._process.stdout.readline(MAX_LINE):
            self._heard = time.monotonic()
            yield line.decode(errors="replace").rstrip("\n")

    def ended(self) -> tuple[int, str]:
        """Exit code, and the last line of what it complained of."""
        code = self._process.wait()
        self._errors.seek(0)
        told = self._errors.read(2**20).decode(errors="replace").strip().splitlines()
        return code, told[-1].strip() if told else ""

    def _watch(self) -> None:
        while self._process.poll() is None:
            silent_s = time.monotonic() - self._heard
            self.silenced = self._silent_s is not None and silent_s > self._silent_s
            if self.silenced or (self._stop and self._stop.is_set()):
                self._end()
                return
            time.sleep(LOOK_S)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._process.poll() is None:
            self._end()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was left to say to a child that is gone
                if pipe:
                    pipe.close()
        self._errors.close()


def shown(lines: Iterator[str], title: str, limit: float, progress: bool) -> Iterator[str]:
    """Show `progress` lines as a bar, and pass on the rest."""
    begin, first = time.monotonic(), None
    with terminal.bar(desc=title, unit="timing", progress=progress) as bar:
        for line in lines:
            if not (numbers := progress_of(line)):
                yield line
                continue
            done, bar.total = numbers
            first = done if first is None else first
            passed = time.monotonic() - begin
            rest = passed * (bar.total - done) / max(1, done - first)
            bar.set_postfix_str(f"about {max(0.0, min(rest, limit - passed)):.0f} s left", refresh=False)
            bar.update(done - bar.n)
        bar.set_postfix_str("")


def progress_of(line: str) -> tuple[int, int] | None:
    """(done, total) of a line that tells it.

    >>> progress_of("progress 3 40"), progress_of("cannot open the model")
    ((3, 40), None)
    """
    word, *numbers = line.split()[:3] or [""]
    if word != "progress" or len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        return None
    return int(numbers[0]), int(numbers[1])
