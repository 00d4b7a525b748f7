"""Worker processes: one thread each, nothing left behind when the parent dies."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import torch
from tqdm import tqdm

from edgemeta.errors import EdgemetaError
from edgemeta.processes import context, settle


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes. Leaving it by an exception ends its processes at once."""
    others = multiprocessing.active_children()
    executor = ProcessPoolExecutor(workers, mp_context=context(), initializer=_init)
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


def _init() -> None:
    settle()
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed worker would leave behind
