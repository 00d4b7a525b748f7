"""Nothing is left behind."""

import multiprocessing
import os
import signal
import time

import pytest

from edgemeta.errors import EdgemetaError
from edgemeta.search.workers import worker_pool
from tests import copies


def test_an_exception_ends_the_workers_at_once():
    with pytest.raises(KeyboardInterrupt), worker_pool(1) as executor:
        assert executor.submit(os.getpid).result() != os.getpid()
        executor.submit(time.sleep, 60)
        raise KeyboardInterrupt
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_one_line_of_advice():
    with pytest.raises(EdgemetaError, match="run the same again to go on"), worker_pool(1) as executor:
        executor.submit(os.kill, executor.submit(os.getpid).result(), signal.SIGKILL).result()


def test_workers_end_with_a_process_that_is_killed():
    """Even those that wait for work, which nothing would tell."""
    here, there = multiprocessing.Pipe()
    main = copies.started(main_of_a_worker, there)
    worker = here.recv()
    assert os.path.exists(f"/proc/{worker}")
    main.kill()
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{worker}")


def main_of_a_worker(told) -> None:
    with worker_pool(1) as executor:
        told.send(executor.submit(os.getpid).result())
        time.sleep(60)
