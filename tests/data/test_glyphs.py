from __future__ import annotations

import numpy as np
import pytest

from edgemeta.data import glyphs as glyphs_module
from edgemeta.data.glyphs import IMAGES_PER_CLASS
from edgemeta.data.sources import load

pytestmark = pytest.mark.usefixtures("few_glyphs")


def test_class_has_its_images_and_one_split(tmp_path):
    data = load("glyphs", in_shape=(1, 12, 12), cache=tmp_path)
    assert data.synthetic and data.images.dtype == np.uint8 and data.scale == 1 / 255
    assert sorted(c for own in data.splits.values() for c in own) == list(range(len(data.class_names)))
    for split, classes in data.splits.items():
        assert classes
        assert all((data.labels == c).sum() == IMAGES_PER_CLASS[split] for c in classes)
    assert len(set(data.class_names)) == len(data.class_names)


def test_second_call_reads_the_cache(tmp_path, monkeypatch):
    first = load("glyphs", in_shape=(1, 12, 12), cache=tmp_path)
    monkeypatch.setattr(glyphs_module, "render_all", None)
    again = load("glyphs", in_shape=(1, 12, 12), cache=tmp_path)
    assert np.array_equal(first.images, again.images) and np.array_equal(first.labels, again.labels)
    assert first.class_names == again.class_names and first.splits == again.splits


def test_seed_decides_and_names_its_own_cache(tmp_path):
    made = (("a", 0), ("b", 0), ("a", 1))
    images = [load("glyphs", in_shape=(1, 12, 12), cache=tmp_path / d, seed=s).images for d, s in made]
    assert np.array_equal(images[0], images[1]) and not np.array_equal(images[0], images[2])


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b"",
        lambda b: b"not an archive",
        lambda b: b[:9999] + bytes(50) + b[10049:],
    ],
)
def test_damaged_cache_is_rendered_again(tmp_path, damage):
    whole = load("glyphs", in_shape=(1, 12, 12), cache=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    good = path.read_bytes()
    path.write_bytes(damage(good))
    assert np.array_equal(load("glyphs", in_shape=(1, 12, 12), cache=tmp_path).images, whole.images)
    assert len(path.read_bytes()) == len(good)
    assert list(tmp_path.iterdir()) == [path]


def test_channels_are_copies_without_their_memory(tmp_path):
    data = load("glyphs", in_shape=(3, 12, 16), cache=tmp_path)
    assert data.images.shape[1:] == (3, 12, 16)
    assert np.array_equal(data.images[:, 0], data.images[:, 2])
    assert data.images.strides[1] == 0


def test_turned_class_shows_turned_pictures(tmp_path):
    data = load("glyphs", cache=tmp_path)
    name = next(n for n in data.class_names if n.endswith("turned 180 deg") and n.split(",")[0] in data.class_names)
    turned, upright = (
        data.images[data.labels == data.class_names.index(n), 0].mean(0) for n in (name, name.split(",")[0])
    )
    blend = [np.corrcoef(np.rot90(upright, turn).ravel(), turned.ravel())[0, 1] for turn in (0, 2)]
    assert blend[1] > 0.8 and blend[1] > blend[0]
