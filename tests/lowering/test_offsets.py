"""Plans against the lower bound, and against every order of first fit where there are few."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemeta.lowering.offsets import ALIGN_BYTES, Span, aligned, first_fit, floor, plan

spans = st.builds(
    lambda size, first, length: Span(size, first, first + length),
    st.integers(1, 4000),
    st.integers(0, 12),
    st.integers(0, 6),
)


@given(st.lists(spans, max_size=20))
def test_what_lives_together_lies_apart(living):
    found = plan(living)
    for (one, at), (other, there) in itertools.combinations(zip(living, found.offsets, strict=True), 2):
        assert not one.meets(other) or at + one.size <= there or there + other.size <= at
    assert all(at % ALIGN_BYTES == 0 and at + s.size <= found.size for s, at in zip(living, found.offsets, strict=True))
    assert floor(living) <= found.size <= sum(aligned(span.size) for span in living)


@given(st.lists(spans, min_size=1, max_size=5))
def test_few_tensors_are_planned_nearly_as_well_as_can_be(living):
    rounded = [span._replace(size=aligned(span.size)) for span in living]
    best = min(first_fit(rounded, order).size for order in itertools.permutations(range(len(living))))
    assert floor(living) <= best <= plan(living).size <= 1.25 * best


def test_a_chain_takes_its_two_largest_neighbours():
    sizes = [800, 3200, 1600, 2400, 80]
    chain = [Span(size, i, i + 1) for i, size in enumerate(sizes)]
    assert plan(chain).size == floor(chain) == 4800


def test_an_order_that_greedy_by_size_gets_wrong():
    """Largest first leaves a hole beside the long-lived small one that nothing fits."""
    living = [Span(24, 0, 1), Span(24, 3, 4), Span(16, 1, 3), Span(16, 2, 2), Span(8, 0, 4)]
    assert plan(living).size == floor(living)


@pytest.mark.parametrize(("size", "rounded"), [(0, 0), (1, 8), (8, 8), (9, 16)])
def test_sizes_are_rounded_up(size, rounded):
    assert aligned(size) == rounded
