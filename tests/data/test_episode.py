from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgemeta.data.dataset import BYTE, Dataset
from edgemeta.data.episode import draw, episode, pool, require_variety
from edgemeta.errors import BadData


def _dataset(sizes, *, shuffle=False, split=None) -> Dataset:
    """Every pixel of an image is its class number; `sizes` images per class."""
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)
    if shuffle:
        labels = np.random.default_rng(0).permutation(labels)
    images = np.broadcast_to(labels[:, None, None, None], (len(labels), 1, 2, 2)).astype(np.uint8)
    names = tuple(f"class {i}" for i in range(len(sizes)))
    return Dataset("made", images, labels, names, {"test": split or tuple(range(len(sizes)))}, BYTE)


@given(data=st.data())
def test_support_and_query_never_meet_and_keep_to_their_class(data):
    sizes = data.draw(st.lists(st.integers(1, 12), min_size=2, max_size=9))
    shot, query = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 4))
    enough = [i for i, size in enumerate(sizes) if size >= shot + query]
    tested = pool(_dataset(sizes, shuffle=True), "test")
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    if not enough:
        with pytest.raises(BadData, match=f"0 of {len(sizes)} classes have {shot + query} images"):
            draw(tested, 1, shot, query, rng=rng)
        return
    drawn = draw(tested, len(enough), shot, query, rng=rng)
    assert sorted(drawn.classes.tolist()) == enough
    both = np.concatenate([drawn.support, drawn.query], 1)
    assert both.shape == (len(enough), shot + query) and len(np.unique(both)) == both.size
    assert (tested.x[torch.as_tensor(both)][..., 0, 0, 0].numpy() == drawn.classes[:, None]).all()


def test_every_image_is_as_likely_in_support_as_in_query():
    tested, rng = pool(_dataset([6, 9]), "test"), np.random.default_rng(0)
    support, query = np.zeros(15), np.zeros(15)
    for _ in range(4000):
        drawn = draw(tested, 2, 2, 3, rng=rng)
        np.add.at(support, drawn.support, 1)
        np.add.at(query, drawn.query, 1)
    expected = 4000 / np.repeat([6, 9], [6, 9])
    np.testing.assert_allclose(support, 2 * expected, rtol=0.1)
    np.testing.assert_allclose(query, 3 * expected, rtol=0.1)


def test_seed_decides():
    tested = pool(_dataset([9] * 8), "test")
    first, again, other = (draw(tested, 5, 2, 3, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.support, other.support)


def test_pool_holds_its_split_only():
    tested = pool(_dataset([3, 4, 5, 6], shuffle=True, split=(3, 1)), "test")
    assert tested.class_names == ("class 3", "class 1")
    assert [len(own) for own in tested.by_class] == [6, 4] and len(tested.x) == 10
    assert tested.x[torch.as_tensor(tested.by_class[1])].unique().tolist() == [1]


def test_pool_of_classes_in_place_shares_memory():
    data = _dataset([3, 4, 5], split=(1, 2))
    assert np.shares_memory(pool(data, "test").x.numpy(), data.images)


def test_episode_holds_scaled_images_and_local_labels():
    tested = pool(_dataset([4] * 6), "test")
    drawn = draw(tested, 3, 1, 2, rng=np.random.default_rng(0))
    task = episode(tested, drawn)
    assert task.support_x.shape == (3, 1, 2, 2) and task.query_x.shape == (6, 1, 2, 2)
    assert task.support_y.tolist() == [0, 1, 2] and task.query_y.tolist() == [0, 0, 1, 1, 2, 2]
    assert (task.way, task.shot, task.classes) == (3, 1, tuple(drawn.classes.tolist()))
    shown = (task.query_x[:, 0, 0, 0] * 255).round().long().tolist()
    assert shown == [drawn.classes[label] for label in task.query_y]


def test_features_stand_in_for_images():
    tested = pool(_dataset([4] * 6), "test")
    drawn = draw(tested, 3, 1, 2, rng=np.random.default_rng(0))
    features = torch.arange(24.0)[:, None].expand(24, 5)
    task = episode(tested, drawn, features)
    assert torch.equal(task.support_x[:, 0], torch.as_tensor(drawn.support.ravel()).float())
    assert task.query_x.shape == (6, 5)


@pytest.mark.parametrize(
    ("way", "shot", "query", "says"),
    [
        (3, 2, 2, "3-way 2-shot with 2 queries needs 3 classes: 2 of 3 classes have 4 images (they have 3 to 9)"),
        (2, 0, 2, "way and shot start at 1"),
        (0, 1, 2, "way and shot start at 1"),
        (2, 1, -1, "queries at 0"),
    ],
)
def test_impossible_episode_says_why(way, shot, query, says):
    with pytest.raises(BadData) as refusal:
        draw(pool(_dataset([3, 9, 5]), "test"), way, shot, query, rng=np.random.default_rng(0))
    assert says in str(refusal.value) and "\n" not in str(refusal.value)


def test_missing_split_names_those_there():
    with pytest.raises(BadData, match="made has no 'train' split; .*test"):
        pool(_dataset([3, 3]), "train")


def test_images_that_are_all_the_same_are_refused():
    same = np.full((12, 1, 2, 2), 7, np.uint8)
    data = Dataset("made", same, np.repeat(np.arange(3), 4), ("a", "b", "c"), {"test": (0, 1, 2)}, BYTE)
    with pytest.raises(BadData, match="all 12 images are the same; check how they were made"):
        require_variety(pool(data, "test"))
    same[11] = 8
    require_variety(pool(data, "test"))


def test_an_image_that_is_asked_for_must_not_have_been_taught():
    tested = pool(_dataset([4] * 6), "test")
    drawn = draw(tested, 3, 2, 2, rng=np.random.default_rng(0))
    query = drawn.query.copy()
    query[1, 0] = drawn.support[1, 1]
    with pytest.raises(BadData, match=f"image {drawn.support[1, 1]} of the pool is in the support and in the query"):
        episode(tested, drawn._replace(query=query))
