from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from edgemeta.data.omniglot import ARRAYS, NAMES, SPLIT
from edgemeta.data.sources import load
from edgemeta.errors import BadData


@pytest.fixture
def official(tmp_path):
    """A small copy of the official layout: 6 + 1 alphabets of 2 characters with 3 drawings, a stroke at the top."""
    root = tmp_path / "omniglot-py"
    pixels = np.full((105, 105), 255, np.uint8)
    pixels[10:25, 20:80] = 0
    for part, count in (("images_background", 6), ("images_evaluation", 1)):
        for alphabet in range(count):
            for character in (1, 2):
                folder = root / part / f"{part[7:11]}_{alphabet}" / f"character{character:02d}"
                folder.mkdir(parents=True)
                for n in range(3):
                    Image.fromarray(pixels).convert("1").save(folder / f"{n:04d}_01.png")
    return root


def test_official_folders(official, tmp_path):
    data = load("omniglot", root=official, cache=tmp_path)
    assert data.images.shape == (14 * 3 * 4, 1, 28, 28) and len(data.class_names) == 14 * 4
    assert {split: len(own) for split, own in data.splits.items()} == {"train": 24, "val": 24, "test": 8}
    alphabets = {split: {data.class_names[c].split("/")[0] for c in own} for split, own in data.splits.items()}
    assert not alphabets["train"] & alphabets["val"] and alphabets["test"] == {"eval_0"}


def test_ink_is_bright_and_rotations_are_classes(official, tmp_path):
    data = load("omniglot", root=official, cache=tmp_path)
    first = [
        data.class_names.index(f"back_0/character01{turn}") for turn in ("", ", turned 90 deg", ", turned 180 deg")
    ]
    upright, quarter, half = (data.images[data.labels == c][0, 0] for c in first)
    assert upright[:8].max() > 200 and upright[10:].max() == 0
    assert np.array_equal(quarter, np.rot90(upright)) and np.array_equal(half, np.rot90(upright, 2))


def test_split_of_alphabets_follows_the_seed(official, tmp_path):
    splits = [load("omniglot", root=official, cache=tmp_path, seed=seed).splits for seed in (0, 0, 3)]
    assert splits[0] == splits[1] != splits[2]


def test_broken_drawing_names_its_folder(official, tmp_path):
    (official / "images_evaluation" / "eval_0" / "character02" / "0000_01.png").write_bytes(b"broken")
    with pytest.raises(BadData, match=r"cannot read the drawings in .*character02"):
        load("omniglot", root=official, cache=tmp_path)


@pytest.mark.parametrize("part", ["", "images_background"])
def test_folder_without_characters_is_refused(tmp_path, part):
    (tmp_path / "empty" / part).mkdir(parents=True)
    with pytest.raises(BadData, match="no omniglot in|holds no Alphabet"):
        load("omniglot", root=tmp_path / "empty", cache=tmp_path)


def test_arrays_are_unpacked_from_four_bits(tmp_path):
    nib = np.zeros((3, 2, 392), np.uint8)
    nib[1, 0, 0] = 0xF5  # the first two pixels of the first drawing of character 1
    np.savez(tmp_path / ARRAYS, nib=nib)
    np.savez(tmp_path / NAMES, alphabet=np.array(["A", "A", "B"]), character=np.array(["c1", "c2", "c1"]))
    (tmp_path / SPLIT).write_text(json.dumps({"splits": {"train": [0], "val": [2], "test": [1]}}))
    data = load("omniglot", root=tmp_path, cache=tmp_path)
    assert data.images[2, 0, 0, :3].tolist() == [255, 85, 0]
    assert data.splits == {"train": (0, 3, 6, 9), "val": (2, 5, 8, 11), "test": (1, 4, 7, 10)}
    assert data.class_names[:4] == ("A/c1", "A/c2", "B/c1", "A/c1, turned 90 deg")


@pytest.mark.parametrize("damaged", [ARRAYS, NAMES, SPLIT])
def test_damaged_arrays_are_one_line(tmp_path, damaged):
    for name in {ARRAYS, damaged}:
        (tmp_path / name).write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(BadData) as refusal:
        load("omniglot", root=tmp_path, cache=tmp_path)
    assert "\n" not in str(refusal.value) and "set root" in str(refusal.value)


def test_real_arrays_have_the_split_of_vinyals(data_root, tmp_path):
    data = load("omniglot", root=data_root, cache=tmp_path)
    assert {split: len(own) for split, own in data.splits.items()} == {"train": 4112, "val": 688, "test": 1692}
    assert (np.bincount(data.labels) == 20).all() and not set(data.splits["train"]) & set(data.splits["test"])
    assert data.images.max() == 255 and 0.03 < (data.images[::50] / 255).mean() < 0.2
    corners = data.images[::50, 0][:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.median(corners) == 0
