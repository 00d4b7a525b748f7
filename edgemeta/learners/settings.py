"""How a learner is meta-trained, and what suits each one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgemeta.data.episode import Draw, Pool, draw
from edgemeta.errors import BadConfig

Sizes = int | tuple[int, ...]  # one size, or several of which each update draws one

# The least value of each setting.
LEAST = dict(episodes=0, way=2, shot=1, query=1, tasks=1, check_every=1, patience=0, frozen=0)


@dataclass(frozen=True)
class Training:
    """Settings of meta-training. Many ways at once teach a body most per second (Snell 2017, section 3.1)."""

    episodes: int = 1000  # tasks in all
    way: Sizes = 30
    shot: Sizes = 1
    query: int = 1
    tasks: int = 1  # per update
    shards: int = 1  # the tasks of an update are split into so many parts; each has its own batch statistics
    lr: float = 5e-3  # of Adam, falling to zero along a cosine
    clip: float = 5.0  # gradient norm
    warmup: float = 0.0  # share of the episodes in which Prototypical Networks, many ways at once, teach the body
    warmup_way: int = 30  # of the warm-up; past the first minute, 60 teach better
    frozen: int = 0  # leave the body as the warm-up left it, and take so many times the other episodes: cheap ones
    multi_step: float = 0.0  # share of the other episodes in which losses after earlier steps count, fading (MAML++)
    check_every: int = 500  # episodes between two validations, and two checkpoints
    patience: int = 0  # validations without a better one before training stops; 0: it never stops early

    def __post_init__(self) -> None:
        if self.shards < 1 or self.tasks % self.shards:
            raise BadConfig(f"{self.tasks} tasks per update do not split into {self.shards} shards; make it a divisor")
        if not 0 <= self.warmup <= 1 or not 0 <= self.multi_step <= 1:
            raise BadConfig(f"warmup {self.warmup} and multi_step {self.multi_step} are shares; give 0 to 1")
        for name, least in LEAST.items():
            if not all(size >= least for size in _all(getattr(self, name))):
                raise BadConfig(f"{name} = {getattr(self, name)!r} trains nothing; give {least} or more")
        if not (_all(self.way) and _all(self.shot) and 0 < self.lr < math.inf and self.clip > 0):
            raise BadConfig(f"no training has way {self.way}, shot {self.shot}, lr {self.lr}, clip {self.clip}")

    def lasting(self, episodes: int) -> Training:
        return replace(self, episodes=episodes)

    def split(self, shards: int) -> Training:
        """For so many shards, with as many more tasks per update as it takes to fill them alike."""
        return replace(self, shards=shards, tasks=math.ceil(self.tasks / shards) * shards)

    def after(self, done: int) -> Training:
        """For parameters that have seen `done` episodes already: those count as warm-up."""
        return replace(self, warmup=max(0.0, self.warmup - done / max(1, self.episodes)))

    def suited(self, pools: Sequence[Pool]) -> Training:
        """With no more ways than every pool has classes of `shot + query` images; `draw` refuses fewer than two."""
        images = largest(self.shot) + self.query
        enough = min(sum(len(positions) >= images for positions in pool.by_class) for pool in pools)
        fitting = tuple(max(2, min(way, enough)) for way in _all(self.way))
        return replace(self, way=fitting if isinstance(self.way, tuple) else fitting[0])

    def phases(self) -> tuple[Training, Training]:
        """The warm-up, of a task for each shard, and what comes after it."""
        warm = round(self.warmup * self.episodes)
        rest = (self.episodes - warm) * max(1, self.frozen)
        first = Training(warm, way=self.warmup_way, tasks=self.shards, shards=self.shards, check_every=self.check_every)
        return first, replace(self, episodes=rest, warmup=0.0)

    def weights(self, progress: float, steps: int) -> tuple[float, ...]:
        """Of the losses after the last steps, at `progress` 0..1 through the episodes.

        Source: multi-step loss (Antoniou 2019, arXiv:1810.09502, section 4): equal at first, at last only the last.

        >>> [Training(multi_step=0.5).weights(progress, 4) for progress in (0.0, 0.25, 0.5)]
        [(0.25, 0.25, 0.25, 0.25), (0.125, 0.125, 0.125, 0.625), (1.0,)]
        """
        if not self.multi_step or steps < 2 or progress >= self.multi_step:
            return (1.0,)
        early = (1 - progress / self.multi_step) / steps
        return (early,) * (steps - 1) + (1 - early * (steps - 1),)


def draw_tasks(pools: Sequence[Pool], settings: Training, *, rng: np.random.Generator) -> list[tuple[int, Draw]]:
    """The tasks of one update, all of one size; each comes from one pool, all pools alike: (position of pool, draw)."""
    way, shot = (sizes if isinstance(sizes, int) else int(rng.choice(sizes)) for sizes in (settings.way, settings.shot))
    places = [int(rng.integers(len(pools))) if len(pools) > 1 else 0 for _ in range(settings.tasks)]
    return [(place, draw(pools[place], way, shot, settings.query, rng=rng)) for place in places]


def largest(sizes: Sizes) -> int:
    return max(_all(sizes))


def _all(sizes: Sizes) -> tuple[int, ...]:
    return sizes if isinstance(sizes, tuple) else (sizes,)


# Meta-training that suits a learner; the others train as `Training()` says. Chosen on validation classes.
_STEPS = Training(way=5, shot=(1, 5), query=5, tasks=4, lr=2e-4, warmup=0.8)  # gently: few ways teach a body little
_HEADS = Training(way=5, shot=(1, 5), query=5, tasks=32, lr=3e-3, warmup=0.7, frozen=50)
RECIPES: dict[str, Training] = {
    **dict.fromkeys(("maml", "fomaml", "meta-sgd", "maml-norm", "maml-last", "metanet"), _STEPS),
    "reptile": replace(_STEPS, shot=5),
    "ridge": replace(_HEADS, way=20, tasks=4),  # a body taught by class means is better than one taught by this
    "lstm": replace(_HEADS, tasks=16),
    "matching-fce": replace(_HEADS, way=20, shot=1, query=2, tasks=8),
    "mann": _HEADS,
}


def recipe(learner: str) -> Training:
    return RECIPES.get(learner, Training())
