"""Processes find those of the same start, whatever earlier ones have left behind."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from edgemeta.errors import EdgemetaError
from edgemeta.learners.meeting import round_of


def start(store, world: int, coming: list[int]) -> list[str]:
    """The names that the processes find, who come in this order."""
    with ThreadPoolExecutor(world) as threads:
        asked = {rank: threads.submit(round_of, store, rank, world, 20.0) for rank in coming}
        return [asked[rank].result() for rank in range(world)]


@pytest.mark.parametrize("coming", [[0, 1, 2], [2, 1, 0]])
def test_all_of_a_start_find_one_name_and_each_start_another(coming):
    store = HashStore()
    rounds = [start(store, 3, coming) for _ in range(4)]
    assert all(len(set(names)) == 1 for names in rounds)
    assert len({names[0] for names in rounds}) == 4


def test_a_start_that_some_never_joined_misleads_nobody():
    """The first and the third came, and died waiting for the second."""
    store = HashStore()
    for rank in (0, 2):
        with pytest.raises(EdgemetaError, match="1 of 3 processes came within 0.1 s; see what the others say"):
            round_of(store, rank, 3, 0.1)
    names = start(store, 3, [1, 2, 0])
    assert len(set(names)) == 1


def test_one_process_meets_itself():
    assert round_of(HashStore(), 0, 1)
