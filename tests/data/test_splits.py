from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgemeta.data.splits import MIN_CLASSES, by_class


@given(classes=st.integers(MIN_CLASSES, 400), seed=st.integers(0, 99))
def test_each_class_is_in_one_of_three_parts_that_give_5_way_episodes(classes, seed):
    splits = by_class(classes, seed=seed)
    assert sorted(c for own in splits.values() for c in own) == list(range(classes))
    assert set(splits) == {"train", "val", "test"}
    assert min(map(len, splits.values())) >= 5 and len(splits["train"]) == max(map(len, splits.values()))
    assert splits == by_class(classes, seed=seed)


def test_seed_moves_classes():
    assert by_class(40, seed=0) != by_class(40, seed=1)


@given(classes=st.integers(2, MIN_CLASSES - 1))
def test_few_classes_are_all_for_testing(classes):
    assert by_class(classes, seed=0) == {"test": tuple(range(classes))}
