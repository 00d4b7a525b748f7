"""Worker processes that begin quickly and never outlive the process they work for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.context import ForkServerContext, SpawnContext

# Imported once, by the process that all workers are copies of, instead of by each: it takes seconds.
PRELOADED = ("edgemeta.search.jobs", "edgemeta.learners.shards")


def context() -> ForkServerContext | SpawnContext:
    """How to start them: as copies of a process that has imported what they need and done nothing else, or anew."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(PRELOADED))
    return found


def settle() -> None:
    """What a worker does first: leave Ctrl-C to the process it works for, and end with it however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
