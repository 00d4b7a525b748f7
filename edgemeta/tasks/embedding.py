"""A task as a short row of numbers, from its support alone: sizes, pixels, shapes, and how its classes differ."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemeta.contracts import Support
from edgemeta.errors import BadData

Embed = Callable[[Support], Tensor]  # support of images -> (e,)

FIELDS = {  # name -> what it is, in which unit; a contrast is the standard deviation over all pixels
    "ways": "log2",
    "shots": "log2 of the mean number of examples per class",
    "imbalance": "standard deviation of examples per class, in means",
    "channels": "log2",
    "height": "log2 of pixels",
    "width": "log2 of pixels",
    "level": "mean pixel, in units of the pixels",
    "contrast": "standard deviation over all pixels, in units of the pixels",
    "exposure": "standard deviation of the images' means, in contrasts",
    "colour": "mean standard deviation over the channels of a place, in contrasts",
    "ground": "mean pixel of the images' outermost frame, in units of the pixels",
    "ink": "mean distance of a pixel from its image's ground, in units of the pixels",
    "softness": "mean distance of a pixel from the level, in contrasts; 1 where half are dark, half bright",
    "across_rows": "mean difference of neighbours in different rows, in contrasts",
    "across_columns": "mean difference of neighbours in different columns, in contrasts",
    "coarse": "share of the images' own variance that is left after 2x2 means",
    "coarser": "share that is left after 4x4 means",
    "row": "mean place of the ink below the middle, in image heights",
    "column": "mean place of the ink right of the middle, in image widths",
    "tall": "standard deviation of the ink's place, in image heights",
    "wide": "standard deviation of the ink's place, in image widths",
    "within": "standard deviation of a pixel within its class, in contrasts; 0 at one shot",
    "between": "standard deviation of the class means of a pixel, in contrasts",
    "apart": "share of the scatter of 4x4 means that lies between classes; 1 at one shot",
    "nearest": "distance of a class mean to the nearest other one, over 4x4 means, in mean distances",
    "rank": "directions among the class means (participation ratio, over 4x4 means), as a share of ways - 1",
}
DIM = len(FIELDS)
TINY = 1e-8  # added before a square root, whose slope at 0 is infinite, and to divisors
COARSE = 4  # pixels to a side
IMAGE = (1, 2, 3)  # all dimensions of one image


def embed(support: Support) -> Tensor:
    """Numbers of order 0.1 to 10 that describe a task: (e,), e = len(FIELDS), which gives their names and units.

    The order of examples and of classes changes nothing, nor do padding rows, and no number depends on what the
    labels mean, as Achille 2019 (Task2Vec, arXiv:1902.03545, section 1) asks of a task embedding. Departure: statistics
    of pixels and of class means, not the Fisher information of a large trained network: a device's owner waits
    milliseconds. Differentiable in the pixels almost everywhere.

    >>> embed(Support(torch.rand(6, 1, 8, 8), torch.eye(3).repeat(2, 1))).shape == (len(FIELDS),)
    True
    """
    x, onehot = _labelled(support)
    contrast = _root(_variance(x, (0, 1, 2, 3)))
    found = _sizes(x, onehot.sum(0)) | _pixels(x, contrast) | _places(x) | _classes(x, onehot, contrast)
    every = torch.stack([found[name] for name in FIELDS])
    if not every.isfinite().all():
        raise BadData(f"{len(x)} support images hold NaN, infinity or enormous values; remove or scale them")
    return every


def _labelled(support: Support) -> tuple[Tensor, Tensor]:
    """Images (n, C, H, W) and one-hot labels (n, way) without padding rows and without classes that have no example."""
    if support.x.dim() != 4:
        raise BadData(f"a task is described by images (n, C, H, W), not by {tuple(support.x.shape)}; pass the images")
    seen, used = support.onehot.sum(1) > 0, support.onehot.sum(0) > 0
    if not seen.any():
        raise BadData(f"none of {len(seen)} support rows has a label; give at least one example")
    return (support.x if seen.all() else support.x[seen]), support.onehot[seen][:, used]


def _sizes(x: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """Of images (n, C, H, W) with `counts` (way,) examples per class."""
    n, channels, height, width = x.shape
    plain = {"ways": len(counts), "shots": n / len(counts), "channels": channels, "height": height, "width": width}
    sizes = {name: x.new_tensor(math.log2(value)) for name, value in plain.items()}
    return sizes | {"imbalance": _variance(counts, (0,)).sqrt() / counts.mean()}


def _pixels(x: Tensor, contrast: Tensor) -> dict[str, Tensor]:
    level, ground, own = x.mean(), _ground(x), _variance(x, IMAGE).mean()
    unit = contrast + TINY
    return {
        "level": level,
        "contrast": contrast,
        "exposure": _root(_variance(x.mean((1, 2, 3)), (0,))) / unit,
        "colour": _root(_variance(x, (1,))).mean() / unit,
        "ground": ground.mean(),
        "ink": (x - ground).abs().mean(),
        "softness": (x - level).abs().mean() / unit,
        "across_rows": _step(x, 2) / unit,
        "across_columns": _step(x, 3) / unit,
        "coarse": _variance(_means(x, 2), IMAGE).mean() / (own + TINY),
        "coarser": _variance(_means(x, COARSE), IMAGE).mean() / (own + TINY),
    }


def _places(x: Tensor) -> dict[str, Tensor]:
    """Where an image's ink is, as the moments of each pixel's distance from the ground; mean over images."""
    ink = (x - _ground(x)).abs().mean(1) + TINY
    share = ink / ink.sum((1, 2), keepdim=True)
    found = {}
    for size, over, middle, spread in ((x.shape[2], 2, "row", "tall"), (x.shape[3], 1, "column", "wide")):
        place = (torch.arange(size, dtype=x.dtype, device=x.device) + 0.5) / size - 0.5
        along = share.sum(over)
        mean = along @ place
        found[middle] = mean.mean()
        found[spread] = _root((along @ place.square() - mean.square()).clamp_min(0)).mean()
    return found


def _classes(x: Tensor, onehot: Tensor, contrast: Tensor) -> dict[str, Tensor]:
    """How images differ within and between classes; each class counts alike, however many examples it has."""
    weights = onehot / onehot.sum(0)
    fine_within, fine_between = _scatter(x.flatten(1), weights)
    z = _means(x, COARSE).flatten(1)
    within, between = _scatter(z, weights)
    centred = weights.T @ z
    centred = centred - centred.mean(0)
    gram, others = centred @ centred.T, max(1, len(centred) - 1)
    power = gram.diagonal()
    distance = _root((power[:, None] + power - 2 * gram).clamp_min(0))
    alone = torch.eye(len(gram), dtype=x.dtype, device=x.device)
    nearest = (distance + alone * distance.amax()).amin(1).mean()
    return {
        "within": _root(fine_within / x[0].numel()) / (contrast + TINY),
        "between": _root(fine_between / x[0].numel()) / (contrast + TINY),
        "apart": between / (within + between + TINY),
        "nearest": nearest * len(gram) * others / ((distance * (1 - alone)).sum() + TINY),
        "rank": power.sum().square() / ((gram.square().sum() + TINY) * others),
    }


def _scatter(z: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Summed variances within classes and of their means, of z (n, d); weights (n, way) sum to one in each class."""
    means = weights.T @ z
    square = weights.T @ z.square()
    return (square - means.square()).sum(1).mean().clamp_min(0), _variance(means, (0,)).sum()


def _ground(x: Tensor) -> Tensor:
    """Mean pixel of each image's outermost frame: (n, 1, 1, 1)."""
    frame = torch.cat([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], 2)
    return frame.mean((1, 2))[:, None, None, None]


def _means(x: Tensor, size: int) -> Tensor:
    """Means of size x size pixels, or near it where sides are no multiples."""
    return F.adaptive_avg_pool2d(x, (max(1, x.shape[2] // size), max(1, x.shape[3] // size)))


def _variance(x: Tensor, over: tuple[int, ...]) -> Tensor:
    """In two passes: torch's own takes ten times as long on a CPU."""
    return (x - x.mean(over, keepdim=True)).square().mean(over)


def _step(x: Tensor, dim: int) -> Tensor:
    """Mean difference of neighbours; 0 where there are none."""
    return x.diff(dim=dim).abs().mean() if x.shape[dim] > 1 else x.new_zeros(())


def _root(value: Tensor) -> Tensor:
    return (value + TINY).sqrt()
