"""Worker processes: one thread each, nothing left behind when the parent dies."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import torch
from tqdm import tqdm

from edgemeta.errors import EdgemetaError


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh interpreters. Leaving it by an exception ends its processes at once."""
    others = multiprocessing.active_children()
    executor = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_init, initargs=(os.getpid(),)
    )
    try:
        yield executor
    except BaseException as error:
        for process in multiprocessing.active_children():
            if process not in others:
                process.kill()
        executor.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise EdgemetaError(
                "a worker process was killed; run the same again to go on, with fewer workers if memory was short "
                "(a script of your own must start below `if __name__ == '__main__':`)"
            ) from error
        raise
    executor.shutdown()


_parent = 0


def _init(parent: int) -> None:
    global _parent
    _parent = parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if hasattr(signal, "SIGKILL") and os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: the kernel ends us with the parent
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed worker would leave behind


def stop_orphan() -> None:
    """Where the kernel does not end us with the parent, end ourselves at the next episode."""
    if _parent and os.getppid() != _parent:
        os._exit(1)
