"""Whether freed memory stays with the process is its own business, so it is asked in a process of its own."""

import subprocess
import sys

import pytest

from edgemeta.learners.memory import keep_freed_memory

ASK = """
import resource
import sys

import torch
from edgemeta.learners.memory import keep_freed_memory

torch.set_num_threads(1)
if not keep_freed_memory():
    sys.exit("not glibc")

def step():
    [torch.ones(1_000_000) for _ in range(8)]  # activations, all alive until the backward pass

def faults():
    for _ in range(3):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
"""


def asked() -> int:
    answer = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=False)
    if "not glibc" in answer.stderr:
        pytest.skip("the C library has no mallopt")
    assert answer.returncode == 0, answer.stderr
    return int(answer.stdout)


def test_memory_that_is_kept_costs_no_page_faults():
    """Twenty steps of 32 MB that come and go: 160,000 pages, where each is asked for anew."""
    assert asked() < 1000


def test_a_library_without_the_setting_says_so(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False
