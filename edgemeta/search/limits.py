"""A time limit on one piece of work in a worker process."""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")
GRACE_S = 60.0  # for code that no Python signal reaches


def within(seconds: float, work: Callable[[Given], Result], given: Given) -> Result:
    """`work(given)`, or TimeoutError after so many seconds; a process stuck in native code ends a minute later.

    Only a main thread can be interrupted, which is where a worker process works; elsewhere there is no limit.
    """
    here = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    if math.isinf(seconds) or not here:
        return work(given)
    with _alarm(seconds), _end_of_process(seconds + GRACE_S):
        return work(given)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, every)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _end_of_process(seconds: float) -> Iterator[None]:
    """A watchdog that needs no interpreter; its farewell goes nowhere."""
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
