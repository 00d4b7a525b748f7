"""A folder with one directory of images per class."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgemeta import terminal
from edgemeta.data.dataset import BYTE, Dataset
from edgemeta.data.images import check_image_shape, read_image
from edgemeta.data.splits import by_class
from edgemeta.errors import BadConfig, BadData, nearest
from edgemeta.types import Shape

INK = ("as-is", "bright")
SPLIT_NAMES = ("train", "val", "test")
_MAX_NAMED = 16  # unreadable files listed in a note
_NEXT = "put each class's images in a directory of their own, e.g. photos/cat/1.png and photos/dog/1.png"


def load_folder(*, in_shape: Shape, root: Path | None, cache: Path, seed: int, ink: str = "as-is") -> Dataset:
    """Classes are the directories of `root`, or of its `train`, `val` and `test` where it has nothing else.

    Images of any format Pillow reads are stretched to `in_shape`. Polarity is left alone; with `ink="bright"` and one
    channel, images whose borders are light are inverted to look like the built-in glyphs (ink = 255).
    Without split directories classes are split at random by `seed`; fewer than 15 are all for testing. `cache` is not
    used.
    """
    if ink not in INK:
        raise BadConfig(f"no ink setting {ink!r}; {nearest(ink, INK)}")
    check_image_shape(in_shape, "an image folder")
    root = _existing(root)
    folders = _class_folders(root)
    pictures, labels, unreadable = _read_all(folders, in_shape)
    kept = sorted(set(labels))
    _require_classes(root, len(folders), len(kept), unreadable)
    images, notes = _polarity(np.stack(pictures), ink)
    label = np.searchsorted(kept, labels).astype(np.int64)
    notes = _notes(root, [folders[i][1] for i in set(range(len(folders))) - set(kept)], unreadable) + notes
    names = tuple(folders[i][1].name for i in kept)
    splits = _splits([folders[i][0] for i in kept], seed)
    return Dataset("folder", images, label, names, splits, BYTE, ink_high=ink == "bright", notes=notes)


def _existing(root: Path | None) -> Path:
    if root is None:
        raise BadData(f"an image folder needs its path: set root; {_NEXT}")
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise BadData(f"{root} {what}; name a folder with a directory of images per class")
    return root


def _class_folders(root: Path) -> list[tuple[str, Path]]:
    """(split or "", directory) of each class in order of name."""
    inside = _directories(root)
    if inside and {path.name for path in inside} <= set(SPLIT_NAMES) and any(map(_directories, inside)):
        found = [(split.name, path) for split in inside for path in _directories(split)]
        _require_apart(root, [path.name for _, path in found])
        return found
    if not inside:
        raise BadData(f"{root} has no directories; {_NEXT}")
    return [("", path) for path in inside]


def _require_apart(root: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadData(
            f"class {twice[0]} stands in several splits of {root}, so nothing would be left unseen; "
            f"name one of its folders instead, e.g. {root / 'train'}"
        )


def _directories(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _read_all(folders: list[tuple[str, Path]], in_shape: Shape) -> tuple[list[np.ndarray], list[int], list[Path]]:
    """Images, the number of the folder of each, and the files that could not be read."""
    images: list[np.ndarray] = []
    labels: list[int] = []
    unreadable: list[Path] = []
    files = [(i, path) for i, (_, folder) in enumerate(folders) for path in _files(folder)]
    for label, path in terminal.bar(files, desc="reading images", leave=False, delay=1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd metadata; what cannot be decoded raises
                images.append(read_image(path, in_shape))
            labels.append(label)
        except Exception:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ... for a damaged file
            unreadable.append(path)
    return images, labels, unreadable


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _require_classes(root: Path, folders: int, classes: int, unreadable: list[Path]) -> None:
    if classes >= 2:
        return
    if not classes and unreadable:
        example = unreadable[0].relative_to(root)
        raise BadData(
            f"none of the {len(unreadable)} files in {root} is a readable image, e.g. {example}; save as PNG or JPEG"
        )
    if not classes:
        raise BadData(f"the {folders} directories in {root} hold no images; {_NEXT}")
    raise BadData(
        f"{root} has images of one class only, and few-shot learning tells classes apart; add a second directory"
    )


def _polarity(images: np.ndarray, ink: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Where bright ink is asked for, images with a light border inverted: the rule that devices apply to theirs."""
    if ink == "as-is" or images.shape[1] != 1:
        return images, ()
    flat = [images[..., [0, -1], :].reshape(len(images), -1), images[..., [0, -1]].reshape(len(images), -1)]
    light = np.median(np.concatenate(flat, 1), axis=1) > 127.5
    if not light.any():
        return images, ()
    note = f"inverted {light.sum()} of {len(images)} images: their borders are light, and ink is to be bright"
    return np.where(light[:, None, None, None], 255 - images, images), (note,)


def _notes(root: Path, empty: Iterable[Path], unreadable: list[Path]) -> tuple[str, ...]:
    notes = [f"skipped class {path.name}: no readable image" for path in empty]
    if unreadable:
        named = [str(path.relative_to(root)) for path in unreadable[:_MAX_NAMED]]
        more = [f"and {len(unreadable) - _MAX_NAMED} more"] if len(unreadable) > _MAX_NAMED else []
        plural = "s" if len(unreadable) > 1 else ""
        notes.append(f"skipped {len(unreadable)} unreadable image{plural}: {', '.join(named + more)}")
    return tuple(notes)


def _splits(of: list[str], seed: int) -> dict[str, tuple[int, ...]]:
    """Classes per split as the directories say, or at random."""
    if not any(of):
        return by_class(len(of), seed=seed)
    return {name: tuple(i for i, own in enumerate(of) if own == name) for name in SPLIT_NAMES if name in of}
