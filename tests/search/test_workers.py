"""Nothing is left behind."""

import multiprocessing
import os
import signal
import time

import pytest

from edgemeta.errors import EdgemetaError
from edgemeta.search.workers import worker_pool


def test_an_exception_ends_the_workers_at_once():
    with pytest.raises(KeyboardInterrupt), worker_pool(1) as executor:
        assert executor.submit(os.getppid).result() == os.getpid()
        executor.submit(time.sleep, 60)
        raise KeyboardInterrupt
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_one_line_of_advice():
    with pytest.raises(EdgemetaError, match="run the same again to go on"), worker_pool(1) as executor:
        executor.submit(os.kill, executor.submit(os.getpid).result(), signal.SIGKILL).result()
