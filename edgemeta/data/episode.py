"""Few-shot episodes: which images, and then the images or features themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from edgemeta.data.dataset import Dataset
from edgemeta.errors import BadData, nearest
from edgemeta.types import Episode


@dataclass(frozen=True)
class Pool:
    """The images of one split's classes, class by class."""

    x: Tensor = field(repr=False)  # (n, C, H, W) uint8 or float32: compact, not scaled
    scale: float
    by_class: tuple[np.ndarray, ...] = field(repr=False)  # positions in x of each class's images
    class_names: tuple[str, ...] = field(repr=False)

    def images(self, index: np.ndarray | Tensor) -> Tensor:
        """What a network sees of x[index]: float32, scaled."""
        return self.x[torch.as_tensor(index)].float() * self.scale

    @cached_property
    def _layout(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All positions in one row, where each class starts in it, and the size of each class."""
        size = np.array([len(own) for own in self.by_class])
        return np.concatenate(self.by_class), np.cumsum(size) - size, size


class Draw(NamedTuple):
    """Positions in a pool; row w of each holds the images of `classes[w]`."""

    support: np.ndarray  # (way, shot) int64
    query: np.ndarray  # (way, query) int64, never an image of the support
    classes: np.ndarray  # (way,) int64 classes of the pool


def pool(dataset: Dataset, split: str) -> Pool:
    """The images of `split`; a view of the data set's where they already stand class by class."""
    classes = dataset.splits.get(split, ())
    if not classes:
        raise BadData(
            f"{dataset.name} has no {split!r} split; {nearest(split, [s for s, c in dataset.splits.items() if c])}"
        )
    order = np.argsort(dataset.labels, kind="stable")
    ends = np.searchsorted(dataset.labels[order], [(c, c + 1) for c in classes])
    positions = np.concatenate([order[start:end] for start, end in ends])
    bounds = np.cumsum([end - start for start, end in ends])
    in_place = len(positions) and np.array_equal(positions, positions[0] + np.arange(len(positions)))
    x = dataset.images[positions[0] : positions[-1] + 1] if in_place else dataset.images[positions]
    by_class = tuple(np.split(np.arange(len(positions)), bounds[:-1]))
    return Pool(torch.from_numpy(x), dataset.scale, by_class, tuple(dataset.class_names[c] for c in classes))


def require_variety(pool: Pool) -> None:
    """Refuse images that are all the same: no class of theirs can be told from another."""
    if len(pool.x) > 1 and all(torch.equal(image, pool.x[0]) for image in pool.x):
        raise BadData(f"all {len(pool.x)} images are the same; check how they were made, or train on other data")


def draw(pool: Pool, way: int, shot: int, query: int, *, rng: np.random.Generator) -> Draw:
    """A random episode among the classes that have `shot + query` images.

    >>> pool = Pool(torch.zeros(40, 1, 4, 4), 1.0, tuple(np.arange(40).reshape(4, 10)), ("a", "b", "c", "d"))
    >>> drawn = draw(pool, way=3, shot=1, query=2, rng=np.random.default_rng(0))
    >>> drawn.support.shape, drawn.query.shape, drawn.classes.shape
    ((3, 1), (3, 2), (3,))
    """
    flat, start, size = pool._layout
    enough = np.flatnonzero(size >= shot + query)
    if min(way, shot) < 1 or query < 0 or len(enough) < way:
        _refuse(way, shot, query, len(enough), size)
    classes = rng.choice(enough, way, replace=False)
    picked = flat[start[classes][:, None] + _without_replacement(size[classes], shot + query, rng)]
    return Draw(picked[:, :shot], picked[:, shot:], classes)


def _refuse(way: int, shot: int, query: int, enough: int, size: np.ndarray) -> None:
    asked = f"{way}-way {shot}-shot with {query} queries"
    if min(way, shot) < 1 or query < 0:
        raise BadData(f"no episode is {asked}; way and shot start at 1, queries at 0")
    has = f"{enough} of {len(size)} classes have {shot + query} images (they have {size.min()} to {size.max()})"
    raise BadData(f"{asked} needs {way} classes: {has}; lower way, shot or query, or add images")


def _without_replacement(size: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` distinct numbers below each of `size` (way,) in random order: (way, count).

    Source: Floyd's algorithm (Bentley 1987, doi:10.1145/30401.315746), row by row at once; it never touches the
    numbers that it does not pick, so large classes cost what small ones do.
    """
    last = size[:, None] - count + np.arange(count)
    picks = rng.integers(0, last + 1)
    for j in range(1, count):
        taken = (picks[:, :j] == picks[:, j : j + 1]).any(1)
        picks[:, j] = np.where(taken, last[:, j], picks[:, j])
    return rng.permuted(picks, axis=1)


def episode(pool: Pool, draw: Draw, features: Tensor | None = None) -> Episode:
    """The drawn images, or rows of `features` (n, d) computed from the whole pool once."""
    if shared := set(draw.support.flat) & set(draw.query.flat):
        raise BadData(f"image {min(shared)} of the pool is in the support and in the query; ask of what was not taught")
    gather = pool.images if features is None else lambda index: features[torch.as_tensor(index)]
    way, shot = draw.support.shape
    label = torch.arange(way)
    return Episode(
        support_x=gather(draw.support.ravel()),
        support_y=label.repeat_interleave(shot),
        query_x=gather(draw.query.ravel()),
        query_y=label.repeat_interleave(draw.query.shape[1]),
        way=way,
        shot=shot,
        classes=tuple(draw.classes.tolist()),
    )


def check(task: Episode) -> None:
    """Refuse what nothing can be learned from: labels that are not 0..way-1, pixels that are no numbers."""
    for part, x, y in (("support", task.support_x, task.support_y), ("query", task.query_x, task.query_y)):
        if y.dtype != torch.int64 or y.shape != x.shape[:1]:
            raise BadData(f"{part} labels are {tuple(y.shape)} {y.dtype}; give one int64 for each of {len(x)} examples")
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < task.way:
            seen = f"{int(y.min())} to {int(y.max())}"
            raise BadData(f"{part} labels run from {seen}, not 0 to {task.way - 1}; number the episode's classes anew")
        if x.dim() > 2 and not x.isfinite().all():  # features that are no numbers are a matter of training
            raise BadData(f"{part} images hold NaN or infinity; remove or repair them")
    if lacking := set(range(task.way)) - set(task.support_y.tolist()):
        raise BadData(f"class {min(lacking)} of {task.way} has no example in the support; label at least one of each")
