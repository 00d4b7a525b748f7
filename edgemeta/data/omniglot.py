"""Omniglot (Lake 2015, doi:10.1126/science.aab3050): 1,623 characters of 50 alphabets, 20 drawings each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from edgemeta import terminal
from edgemeta.data.archive import DAMAGED, read_arrays
from edgemeta.data.dataset import BYTE, Dataset, with_channels
from edgemeta.data.images import resize
from edgemeta.errors import BadData
from edgemeta.types import Shape

ARRAYS, NAMES, SPLIT = "omniglot28_gray4.npz", "omniglot28.npz", "vinyals_split.json"
BACKGROUND, EVALUATION = "images_background", "images_evaluation"
VAL_ALPHABETS = 5  # of the 30 background alphabets
_NEXT = f"set root to a folder with {ARRAYS} and {SPLIT}, or with the official {BACKGROUND}/ and {EVALUATION}/"


def load_omniglot(*, in_shape: Shape, root: Path | None, cache: Path, seed: int) -> Dataset:
    """Each of 4 rotations of a character is a class of its own; ink = 255. `cache` is not used.

    Arrays come with the split of Vinyals 2016 (arXiv:1606.04080): 1028 / 172 / 423 characters. The official folders are
    split by alphabet: evaluation is tested on, and five background alphabets, chosen by `seed`, validate.
    """
    if root is None:
        raise BadData(f"omniglot needs its files; {_NEXT}")
    for folder in (Path(root), Path(root) / "omniglot"):
        if (folder / ARRAYS).is_file():
            gray, names, splits = _from_arrays(folder)
            break
        if (folder / BACKGROUND).is_dir() or (folder / EVALUATION).is_dir():
            gray, names, splits = _from_folders(folder, max(in_shape[1:]), seed)
            break
    else:
        raise BadData(f"no omniglot in {root}; {_NEXT}")
    return _with_rotations(gray, names, splits, in_shape)


def _with_rotations(gray: list[np.ndarray], names: list[str], splits: dict[str, list[int]], in_shape: Shape) -> Dataset:
    """`gray`: per character its images (n, h, w) uint8. Class `turn * characters + i` is character i, turned."""
    channels, height, width = in_shape
    flat, counts = np.concatenate(gray), [len(own) for own in gray]
    turned = [resize(np.ascontiguousarray(np.rot90(flat, turn, (1, 2))), (height, width)) for turn in range(4)]
    labels = np.repeat(np.arange(4 * len(gray)), np.tile(counts, 4))
    classes = {s: tuple(turn * len(gray) + i for turn in range(4) for i in own) for s, own in splits.items()}
    turned_names = tuple(name + (f", turned {90 * turn} deg" if turn else "") for turn in range(4) for name in names)
    images = with_channels(np.concatenate(turned), channels)
    return Dataset("omniglot", images, labels, turned_names, classes, BYTE, ink_high=True)


def _from_arrays(folder: Path) -> tuple[list[np.ndarray], list[str], dict[str, list[int]]]:
    """4-bit gray images, two to a byte: `nib` (characters, 20, 28 * 28 / 2)."""
    try:
        (nib,) = read_arrays(folder / ARRAYS, "nib")
        names = [f"{a}/{c}" for a, c in zip(*read_arrays(folder / NAMES, "alphabet", "character"), strict=True)]
        splits = {name: list(map(int, own)) for name, own in json.loads((folder / SPLIT).read_text())["splits"].items()}
        gray = np.stack([nib >> 4, nib & 15], -1).reshape(*nib.shape[:2], 28, 28) * np.uint8(17)
    except DAMAGED as error:
        raise BadData(f"{folder} is not the omniglot that was expected ({error}); {_NEXT}") from error
    return list(gray), names, splits


def _from_folders(folder: Path, side: int, seed: int) -> tuple[list[np.ndarray], list[str], dict[str, list[int]]]:
    found = {part: sorted((folder / part).glob("*/character*/")) for part in (BACKGROUND, EVALUATION)}
    characters = [path for paths in found.values() for path in paths]
    if not characters:
        raise BadData(f"{folder} holds no Alphabet/characterNN folders; unpack the official zip files there")
    reading = terminal.bar(characters, desc="reading omniglot", leave=False, delay=1)
    gray = [_read_character(path, side) for path in reading]
    names = [f"{path.parent.name}/{path.name}" for path in characters]
    alphabets = sorted({path.parent.name for path in found[BACKGROUND]})
    held = min(VAL_ALPHABETS, len(alphabets) // 2)
    val = set(np.random.default_rng(seed).permutation(alphabets)[:held].tolist())
    splits: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for i, path in enumerate(characters):
        background = i < len(found[BACKGROUND])
        splits[("val" if path.parent.name in val else "train") if background else "test"].append(i)
    return gray, names, {split: own for split, own in splits.items() if own}


def _read_character(folder: Path, side: int) -> np.ndarray:
    """(n, side, side) uint8 with bright ink; the files show black ink on white, one bit per pixel."""
    try:
        drawings = [Image.open(path).convert("L") for path in sorted(folder.glob("*.png"))]
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise BadData(f"cannot read the drawings in {folder} ({error}); unpack the official zip file again") from error
    if not drawings:
        raise BadData(f"{folder} holds no PNG files; unpack the official zip file again")
    return np.stack([255 - np.asarray(d.resize((side, side), Image.Resampling.BILINEAR)) for d in drawings])
