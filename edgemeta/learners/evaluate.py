"""Few-shot accuracy: many episodes, a 95 % interval, never transductive."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from edgemeta.contracts import Learner, Net, Params
from edgemeta.data.episode import Pool, draw, episode
from edgemeta.learners.train import adapt, support_of


class Score(NamedTuple):
    """Mean accuracy over episodes, 0..1, and the half width of its 95 % interval."""

    mean: float
    ci95: float
    episodes: int

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} ± {100 * self.ci95:.1f} %"


@torch.no_grad()
def features(net: Net, slow: Params, pool: Pool, *, chunk: int = 256) -> Tensor:
    """Body features (n, dim) of every image of a pool, batch norm in inference mode: no query sees another."""
    positions = np.arange(len(pool.x))
    return torch.cat([net.body(slow, pool.images(part)) for part in np.split(positions, positions[chunk::chunk])])


def images_each(pool: Pool, way: int) -> int:
    """Images that at least `way` classes of the pool have, or all of its classes where they are fewer."""
    sizes = sorted((len(positions) for positions in pool.by_class), reverse=True)
    return sizes[min(way, len(sizes)) - 1]


def queries(pool: Pool, way: int, shot: int, *, most: int = 10) -> int:
    """Queries per class that at least `way` classes of the pool have images for, beside `shot`; at least 1."""
    return max(1, min(most, images_each(pool, way) - shot))


def evaluate(
    learner: Learner,
    slow: Params,
    pool: Pool,
    z: Tensor,
    *,
    way: int,
    shot: int,
    query: int = 10,
    episodes: int = 600,
    rng: np.random.Generator,
) -> Score:
    """Accuracy over drawn episodes, given the pool's `features`; adaptation sees the support only."""
    hits = np.empty(episodes)
    for i in range(episodes):
        task = episode(pool, draw(pool, way, shot, query, rng=rng), z)
        fast = adapt(learner, slow, support_of(task))
        with torch.no_grad():
            guess = learner.predict(slow, fast, task.query_x).argmax(1)
        hits[i] = (guess == task.query_y).float().mean().item()
    return Score(float(hits.mean()), float(1.96 * hits.std(ddof=1) / episodes**0.5), episodes)
