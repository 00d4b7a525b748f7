"""Whether freed memory stays with the process is its own business, so it is asked in a process of its own."""

import resource

import pytest
import torch

from edgemeta.learners.memory import keep_freed_memory
from edgemeta.search.workers import worker_pool


def faults() -> int | None:
    """Page faults of twenty steps; None where the C library has no mallopt."""
    if not keep_freed_memory():
        return None
    for _ in range(3):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def step() -> None:
    [torch.ones(1_000_000) for _ in range(8)]  # activations, all alive until the backward pass


def test_memory_that_is_kept_costs_no_page_faults():
    """Twenty steps of 32 MB that come and go: 160,000 pages, where each is asked for anew."""
    with worker_pool(1) as executor:
        found = executor.submit(faults).result()
    if found is None:
        pytest.skip("the C library has no mallopt")
    assert found < 1000


def test_a_library_without_the_setting_says_so(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False
