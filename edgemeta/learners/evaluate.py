"""Few-shot accuracy over many episodes, with 95 % intervals: one figure, class by class, or over ways and shots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from edgemeta.contracts import Fast, Learner, Params, Support
from edgemeta.data.episode import Pool, draw, episode
from edgemeta.errors import BadConfig
from edgemeta.learners.train import adapt, embedded, support_of
from edgemeta.types import Episode

TOGETHER = 16  # episodes that adapt at once: enough to hide the cost of small operators, little enough for a cache


class Score(NamedTuple):
    """Mean accuracy over episodes, 0..1, and the half width of its 95 % interval, 1 where there was one episode."""

    mean: float
    ci95: float
    episodes: int
    transductive: bool = False  # queries were normalised by one another

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} ± {100 * self.ci95:.1f} %" + (", transductive" if self.transductive else "")


def features(learner: Learner, slow: Params, pool: Pool, *, chunk: int = 256) -> Tensor | None:
    """What a learner on features sees of a pool (n, dim); None for one that changes the body: it needs the images."""
    return embedded(learner.net, slow, pool, chunk=chunk) if learner.on_features else None


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
    z: Tensor | None,
    *,
    way: int,
    shot: int,
    query: int = 10,
    episodes: int = 1000,
    rng: np.random.Generator,
) -> Score:
    """Accuracy over drawn episodes, given the pool's `features`; adaptation sees the support only.

    `way` and `shot` need not be those of the training.
    """
    _, shares = _right(learner, slow, pool, z, way=way, shot=shot, query=query, episodes=episodes, rng=rng)
    return _score(shares.mean(1), learner)


def by_class(
    learner: Learner,
    slow: Params,
    pool: Pool,
    z: Tensor | None,
    *,
    way: int,
    shot: int,
    query: int = 10,
    episodes: int = 1000,
    rng: np.random.Generator,
) -> dict[str, Score]:
    """The share of each class's queries that were given its name, worst first; of the episodes that it was drawn in.

    With the same `rng` these are the episodes of `evaluate`. A class that was never drawn is not there.
    """
    drawn, shares = _right(learner, slow, pool, z, way=way, shot=shot, query=query, episodes=episodes, rng=rng)
    scores = {pool.class_names[i]: _score(shares[drawn == i], learner) for i in np.unique(drawn)}
    return dict(sorted(scores.items(), key=lambda item: item[1].mean))


def grid(
    learner: Learner,
    slow: Params,
    pool: Pool,
    z: Tensor | None,
    *,
    ways: Sequence[int] = (5, 20),
    shots: Sequence[int] = (1, 5),
    query: int = 10,
    episodes: int = 1000,
    rng: np.random.Generator,
) -> dict[tuple[int, int], Score]:
    """Accuracy against ways and shots: (way, shot) -> score. What the pool has no images for is refused at once."""
    cells = [(way, shot) for way in ways for shot in shots]
    for way, shot in cells:
        draw(pool, way, shot, query, rng=np.random.default_rng(0))
    asked = {"query": query, "episodes": episodes}
    each = zip(cells, rng.spawn(len(cells)), strict=True)
    return {cell: evaluate(learner, slow, pool, z, way=cell[0], shot=cell[1], rng=own, **asked) for cell, own in each}


@torch.no_grad()
def _right(
    learner: Learner,
    slow: Params,
    pool: Pool,
    z: Tensor | None,
    *,
    way: int,
    shot: int,
    query: int,
    episodes: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """The classes of each episode and the share of their queries that was named right, both (episodes, way)."""
    if min(query, episodes) < 1:
        raise BadConfig(f"{episodes} episodes with {query} queries measure nothing; give at least 1 of each")
    drawn, shares = np.empty((episodes, way), np.int64), np.empty((episodes, way))
    for begin in range(0, episodes, TOGETHER):
        count = min(TOGETHER, episodes - begin)
        tasks = [episode(pool, draw(pool, way, shot, query, rng=rng), z) for _ in range(count)]
        for i, (task, fast) in enumerate(zip(tasks, _adapted(learner, slow, tasks), strict=True), start=begin):
            guess = learner.predict(slow, fast, task.query_x).argmax(1)
            drawn[i], shares[i] = task.classes, (guess == task.query_y).view(way, query).double().mean(1)
    return drawn, shares


def _adapted(learner: Learner, slow: Params, tasks: Sequence[Episode]) -> Iterator[Fast]:
    """What each task adapts; all at once where that is features: their small operators cost more to start than to run.

    Bodies that have each adapted cannot share a convolution, so such tasks go one after another.
    """
    supports = [support_of(task) for task in tasks]
    if len(tasks) == 1 or not learner.on_features:
        yield from (adapt(learner, slow, support) for support in supports)
        return
    x, onehot = (torch.stack(part) for part in zip(*supports, strict=True))
    fast = vmap(lambda x, onehot: adapt(learner, slow, Support(x, onehot)))(x, onehot)
    yield from ({name: value[i] for name, value in fast.items()} for i in range(len(tasks)))


def _score(right: np.ndarray, learner: Learner) -> Score:
    """Of accuracies (episodes,)."""
    ci95 = 1.96 * right.std(ddof=1) / len(right) ** 0.5 if len(right) > 1 else 1.0
    return Score(float(right.mean()), float(ci95), len(right), learner.transductive)
