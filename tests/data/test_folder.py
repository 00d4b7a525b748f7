from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgemeta.data.episode import draw, pool
from edgemeta.data.sources import load
from edgemeta.errors import BadConfig, BadData


def _load(root: Path, **settings):
    return load("folder", **{"in_shape": (1, 8, 8), "root": root, "cache": root.parent / "cache", **settings})


def test_directories_are_classes_of_uneven_size(picture_folder):
    data = _load(picture_folder({"cat": 3, "ant": 7, "dog": 1}))
    assert data.class_names == ("ant", "cat", "dog") and np.bincount(data.labels).tolist() == [7, 3, 1]
    assert data.images.shape == (11, 1, 8, 8) and data.images.dtype == np.uint8 and data.notes == ()
    drawn = draw(pool(data, "test"), 2, 1, 2, rng=np.random.default_rng(0))
    assert sorted(drawn.classes.tolist()) == [0, 1]


def test_unreadable_images_are_named_skipped_and_counted(picture_folder):
    root = picture_folder({"cat": 3, "dog": 3})
    (root / "cat" / "bad.png").write_bytes((root / "cat" / "0.png").read_bytes()[:50])
    (root / "dog" / "notes.txt").write_text("not an image")
    (root / "dog" / ".hidden").write_text("left out without a word")
    data = _load(root)
    assert data.notes == ("skipped 2 unreadable images: cat/bad.png, dog/notes.txt",)
    assert len(data.images) == 6


def test_long_list_of_unreadable_images_is_cut(picture_folder):
    root = picture_folder({"cat": 3, "dog": 3})
    for n in range(20):
        (root / "cat" / f"bad{n:02d}.jpg").write_bytes(b"")
    (note,) = _load(root).notes
    assert note.startswith("skipped 20 unreadable images: cat/bad00.jpg") and note.endswith("and 4 more")


def test_class_without_a_readable_image_is_left_out_and_labels_close_up(picture_folder):
    root = picture_folder({"ant": 0, "bee": 2, "cat": 2})
    data = _load(root)
    assert data.class_names == ("bee", "cat") and set(data.labels.tolist()) == {0, 1}
    assert data.notes == ("skipped class ant: no readable image",)


@pytest.mark.parametrize(
    ("counts", "says"),
    [({}, "has no directories"), ({"cat": 4}, "one class only"), ({"cat": 0, "dog": 0}, "hold no images")],
)
def test_too_little_is_refused_with_the_next_move(picture_folder, counts, says):
    root = picture_folder(counts)
    root.mkdir(exist_ok=True)
    with pytest.raises(BadData, match=says) as refusal:
        _load(root)
    assert "\n" not in str(refusal.value)


def test_all_unreadable_is_refused(picture_folder):
    root = picture_folder({"cat": 0, "dog": 0})
    (root / "cat" / "a.png").write_bytes(b"broken")
    (root / "dog" / "b.png").write_bytes(b"broken")
    with pytest.raises(BadData, match=r"none of the 2 files .* e.g. cat/a.png; save as PNG"):
        _load(root)


def test_file_instead_of_a_folder_is_refused(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(b"")
    with pytest.raises(BadData, match="is a file; name a folder"):
        _load(path)


def test_sensor_channels_are_refused(picture_folder):
    with pytest.raises(BadData, match="1 or 3 channels, not 2"):
        _load(picture_folder({"cat": 2, "dog": 2}), in_shape=(2, 8, 8))


def test_split_directories_are_obeyed(tmp_path, picture_folder):
    root = picture_folder({"train/cat": 2, "train/dog": 2, "test/ant": 2, "val/bee": 2})
    data = _load(root)
    named = {split: {data.class_names[c] for c in classes} for split, classes in data.splits.items()}
    assert named == {"train": {"cat", "dog"}, "val": {"bee"}, "test": {"ant"}}


def test_class_in_two_splits_is_refused(picture_folder):
    with pytest.raises(BadData, match="class cat stands in several splits"):
        _load(picture_folder({"train/cat": 2, "train/dog": 2, "test/cat": 2}))


def test_many_classes_are_split_by_seed(picture_folder):
    root = picture_folder({f"class{i:02d}": 1 for i in range(20)})
    first, again, other = (_load(root, seed=seed).splits for seed in (0, 0, 1))
    assert first == again != other
    assert {split: len(own) for split, own in first.items()} == {"test": 5, "val": 5, "train": 10}


def test_polarity_is_left_alone_unless_bright_ink_is_asked_for(picture_folder):
    root = picture_folder({"cat": 3, "dog": 3}, level=230)
    kept, inverted = _load(root), _load(root, ink="bright")
    assert kept.notes == () and kept.images[0, 0, 0, 0] == 230
    assert np.array_equal(inverted.images, 255 - kept.images) and "inverted" in inverted.notes[0]


def test_dark_borders_and_colour_are_never_inverted(picture_folder):
    dark = picture_folder({"cat": 3, "dog": 3}, level=20)
    assert _load(dark, ink="bright").notes == ()
    assert _load(dark, ink="bright", in_shape=(3, 8, 8)).images[0, :, 0, 0].tolist() == [20, 20, 20]


def test_unknown_ink_is_refused(picture_folder):
    with pytest.raises(BadConfig, match="no ink setting 'brigth'; did you mean 'bright'"):
        _load(picture_folder({"cat": 2, "dog": 2}), ink="brigth")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tiff"])
def test_formats_that_pillow_reads(picture_folder, suffix):
    root = picture_folder({"cat": 1, "dog": 1})
    Image.new("RGB", (9, 9), (200, 100, 50)).save(root / "cat" / f"new.{suffix}")
    data = _load(root, in_shape=(3, 8, 8))
    assert data.notes == () and len(data.images) == 3
    np.testing.assert_allclose(data.images[1, :, 4, 4], (200, 100, 50), atol=12)
