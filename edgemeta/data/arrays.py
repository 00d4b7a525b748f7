"""Examples from an .npz file: images, spectrograms or windows of sensor readings."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from edgemeta.data.archive import DAMAGED, read_arrays
from edgemeta.data.dataset import BYTE, Dataset
from edgemeta.data.splits import by_class
from edgemeta.errors import BadData
from edgemeta.types import Shape, text_of

MAX_BYTES = 16 * 2**30
_NEXT = "write it with np.savez(path, x=x, y=y), x (n, C, H, W) or (n, H, W) float or uint8, y (n,)"


def load_npz(*, in_shape: Shape, root: Path | None, cache: Path, seed: int) -> Dataset:
    """`root` is the file; `x` (n, C, H, W) or (n, H, W) uint8 or float, `y` (n,) whole numbers or names.

    Values stay as they are (uint8 is scaled to 0..1). Classes are split at random by `seed`; fewer than 15 are all for
    testing. Headers are checked before anything is allocated and nothing is unpickled. `cache` is not used.
    """
    if root is None:
        raise BadData(f"npz needs a file: set root to it; {_NEXT}")
    path = Path(root)
    try:
        _check_header(path)
        x, y = read_arrays(path, "x", "y")
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or error
        raise BadData(f"cannot read {path}: {reason}; {_NEXT}") from error
    images, y = _images(x, in_shape, path), _labels(y, path)
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise BadData(f"{path}: y names {len(classes)} class, and few-shot learning tells classes apart; add a second")
    names, scale = tuple(map(str, classes)), BYTE if images.dtype == np.uint8 else 1.0
    return Dataset("npz", images, labels.astype(np.int64), names, by_class(len(names), seed=seed), scale)


def _labels(y: np.ndarray, path: Path) -> np.ndarray:
    """Whole numbers, or names that are text."""
    if y.dtype.kind == "U":
        points = np.ascontiguousarray(y).view(np.uint32 if y.dtype.isnative else np.dtype(np.uint32).newbyteorder())
        if ((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any():  # numpy looks at none of them
            raise BadData(f"{path}: names in y hold characters that do not exist; {_NEXT}")
    try:
        return y.astype(str) if y.dtype.kind == "S" else y
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: names in y are bytes beyond ASCII; give text, or whole numbers") from error


def _check_header(path: Path) -> None:
    """Refuse what could not be used, from the few bytes that announce each array."""
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for name in ("x", "y"):
            if f"{name}.npy" not in archive.namelist():
                inside = ", ".join(n.removesuffix(".npy") for n in archive.namelist()) or "nothing"
                raise BadData(f"{path} has no array {name!r} but {inside}; {_NEXT}")
            headers[name] = _header(archive, f"{name}.npy", path)
    (x_shape, x_type), (y_shape, y_type) = headers["x"], headers["y"]
    if len(x_shape) not in (3, 4) or math.prod(x_shape) == 0:
        raise BadData(f"{path}: x has shape {x_shape}; {_NEXT}")
    if x_type != np.uint8 and x_type.kind != "f":
        raise BadData(f"{path}: x is {x_type}; convert it to float32, or to uint8 for images")
    if y_shape != x_shape[:1]:
        raise BadData(f"{path}: y has shape {y_shape}, expected {x_shape[:1]}, one label for each of x")
    if y_type.kind not in "iubUS":
        raise BadData(f"{path}: y is {y_type}; labels are whole numbers or names")


def _header(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that an array announces, if its bytes are there and not too many."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(member)
        there = archive.getinfo(name).file_size - member.tell()
    needed = math.prod(shape) * kind.itemsize
    if kind.hasobject:
        raise BadData(f"{path}: {name} holds Python objects, which are never unpickled; {_NEXT}")
    if needed > MAX_BYTES:
        raise BadData(
            f"{path}: {name} takes {needed / 2**30:.0f} GiB, at most {MAX_BYTES / 2**30:.0f} are read; give fewer"
        )
    if needed != there:
        raise BadData(f"{path}: {name} announces {needed} bytes and has {there}; {_NEXT}")
    return shape, kind


def _images(x: np.ndarray, in_shape: Shape, path: Path) -> np.ndarray:
    """(n, C, H, W) uint8 or finite float32 of the shape that was asked for."""
    images = x[:, None] if x.ndim == 3 else x
    if images.shape[1:] != tuple(in_shape):
        has, wanted = text_of(images.shape[1:]), text_of(in_shape)
        raise BadData(f"{path} has examples of {has}, not {wanted}; set in_shape to {has}")
    if images.dtype == np.uint8:
        return images
    with np.errstate(over="ignore"):
        images = images.astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(1))
    if len(bad):
        raise BadData(f"{path}: {len(bad)} examples hold NaN or infinity, first x[{bad[0]}]; remove or repair them")
    return images
