"""Worker processes that begin quickly and never outlive the process they work for, and those that torchrun starts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import NamedTuple

# Imported once, by the process that all workers are copies of, instead of by each: it takes seconds.
PRELOADED = ("edgemeta.search.jobs", "edgemeta.learners.shards")


def context() -> ForkServerContext | SpawnContext:
    """How to start them: as copies of a process that has imported what they need and done nothing else, or anew."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(PRELOADED))
    with _deaf():
        forkserver.ensure_running()
    return found


def prepare() -> None:
    """Let the process that workers are copies of begin to import, while this one has other things to do."""
    context()


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started meanwhile never hears of Ctrl-C: in the middle of its imports it would print where it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard or signal.SIG_DFL)


def settle() -> None:
    """What a worker does first: leave Ctrl-C to the process it works for, and end with it however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


@contextmanager
def ending_with_launcher(every_s: float = 0.5) -> Iterator[None]:
    """End this process when the one that launched it is gone, which then cannot end it: nobody would wait for it."""
    launcher, over = os.getppid(), threading.Event()

    def watch() -> None:
        while not over.wait(every_s):
            if os.getppid() != launcher:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


class Place(NamedTuple):
    """Where this process stands among those that share a training."""

    rank: int = 0  # 0 leads: it alone writes, validates and tells
    world: int = 1  # processes in all
    local_rank: int = 0  # on this machine
    local_world: int = 1
    launched: bool = False  # by torchrun, alone or not


def place() -> Place:
    """As torchrun says in the environment of what it starts; alone, where it was not torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Place()
    said = {name.lower(): int(os.environ[name]) for name in ("RANK", "LOCAL_RANK")}
    return Place(
        world=int(os.environ["WORLD_SIZE"]), local_world=int(os.environ["LOCAL_WORLD_SIZE"]), launched=True, **said
    )
