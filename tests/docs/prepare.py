"""What a reader has before a page begins: folders of real images, arrays. For the invisible blocks of pages.

    <!--- invisible-code-block: python
    from tests.docs import prepare
    prepare.images("my_classes", names=["cat", "dog"])
    -->

Images are handwritten digits, or the built-in glyphs where more than ten classes are asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from edgemeta.config import default_cache
from edgemeta.data import sources
from edgemeta.data.dataset import Dataset

FIRST = 0  # images from here on are to teach,
LATER = 30  # and from here on to ask about


def images(folder: str, *, names: Sequence[str] | int = 3, each: int = 5, size: int = 28, color: bool = False,
           start: int = FIRST) -> None:  # fmt: skip
    """`FOLDER/NAME/0.png` and so on, `each` images of every class, a number of classes being called a, b, c ..."""
    called = (
        [f"{i:02d}" if names > 26 else chr(ord("a") + i) for i in range(names)] if isinstance(names, int) else names
    )
    for position, (name, pictures) in enumerate(zip(called, _classes(len(called), start, each), strict=True)):
        for i, picture in enumerate(pictures):
            path = Path(folder) / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            _picture(picture, size, color, position).save(path)


def run(folder: str, *, device: str = "null") -> None:
    """A run folder of `edgemeta pick`, with a bundle that knows three classes."""
    from edgemeta import pipeline

    with tempfile.TemporaryDirectory() as teach:
        images(teach)
        pipeline.pick(run=folder, device=device, images=teach, progress=False)


def photos(folder: str, *, classes: int = 3, each: int = 2, size: int = 28, color: bool = False) -> None:
    """Other images of the same classes, in one folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for position, pictures in enumerate(_classes(classes, LATER, each)):
        for i, picture in enumerate(pictures):
            _picture(picture, size, color, position).save(Path(folder) / f"{position}-{i}.png")


def arrays(*, classes: int = 2, each: int = 5, start: int = FIRST) -> list[list[np.ndarray]]:
    """Images of each class as numpy arrays (28, 28), uint8."""
    return [list(pictures) for pictures in _classes(classes, start, each)]


def npz(path: str, *, classes: int = 20, each: int = 12) -> None:
    """Arrays `x` (n, 1, 28, 28) and `y` (n,)."""
    x = np.concatenate(_classes(classes, FIRST, each))[:, None]
    np.savez(path, x=x, y=np.repeat(np.arange(classes), each))


def windows(path: str, *, channels: int = 6, length: int = 64, classes: int = 20, each: int = 12) -> None:
    """Arrays `x` (n, channels, 1, length) and `y` (n,): per class its own frequencies, per window its own noise."""
    rng = np.random.default_rng(0)
    waves = rng.uniform(0.05, 0.9, (classes, 1, channels, 1, 1)) * np.arange(length)
    x = np.sin(waves + rng.uniform(0, 3, (classes, each, channels, 1, 1))) + rng.normal(
        0, 0.2, (classes, each, channels, 1, length)
    )
    np.savez(path, x=x.reshape(-1, channels, 1, length).astype(np.float32), y=np.repeat(np.arange(classes), each))


def _classes(count: int, start: int, each: int) -> list[np.ndarray]:
    """(each, 28, 28) uint8 of every class."""
    found: Dataset = sources.load("digits" if count <= 10 else "glyphs", cache=default_cache())
    chosen = [np.flatnonzero(found.labels == label) for label in np.unique(found.labels)[:count]]
    return [found.images[np.resize(own[start % len(own) :], each)].reshape(each, 28, 28) for own in chosen]


def _picture(pixels: np.ndarray, size: int, color: bool, position: int) -> Image.Image:
    grey = Image.fromarray(pixels).resize((size, size))
    if not color:
        return grey
    tint = np.array([(position * 5 + 3) % 8, (position * 3 + 1) % 8, position % 8]) / 8  # a ground of its own
    return Image.fromarray(np.clip(np.asarray(grey)[..., None] * 0.6 + 100 * tint, 0, 255).astype(np.uint8))
