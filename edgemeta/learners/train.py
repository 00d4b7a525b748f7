"""Meta-training: one loop for every learner of the registry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgemeta.contracts import Fast, Learner, Net, Params, Support
from edgemeta.data.episode import Pool, draw
from edgemeta.errors import Diverged
from edgemeta.types import Episode

STATISTICS = "stat."  # running statistics: updated by the forward pass, never by a gradient


@dataclass(frozen=True)
class Training:
    """Settings of meta-training. Many ways at once teach a body most per second (Snell 2017, section 3.1)."""

    episodes: int = 1000
    way: int = 30
    shot: int = 1
    query: int = 1
    lr: float = 5e-3
    clip: float = 5.0  # gradient norm

    def lasting(self, episodes: int) -> Training:
        return replace(self, episodes=episodes)

    def suited(self, pool: Pool) -> Training:
        """With no more ways than the pool has classes of `shot + query` images; `draw` refuses fewer than two."""
        enough = sum(len(positions) >= self.shot + self.query for positions in pool.by_class)
        return replace(self, way=max(2, min(self.way, enough)))


def support_of(episode: Episode) -> Support:
    return Support(episode.support_x, F.one_hot(episode.support_y, episode.way).float())


def adapt(learner: Learner, slow: Params, support: Support) -> Fast:
    """`start`, then `step` as often as a device would."""
    fast = learner.start(slow, support)
    for _ in range(learner.steps):
        fast = learner.step(slow, fast, support)
    return fast


def train(
    learner: Learner,
    net: Net,
    slow: Params,
    pool: Pool,
    settings: Training,
    *,
    rng: np.random.Generator,
    tick: Callable[[int], None] = lambda n: None,
) -> Params:
    """Meta-train `slow` with Adam under a cosine schedule and return new parameters; the argument is not touched.

    `tick` is called after every episode with the number done, for progress bars and for stopping by an exception.
    """
    slow = {name: value.detach().clone() for name, value in slow.items()}
    trained = [value.requires_grad_() for name, value in slow.items() if not name.startswith(STATISTICS)]
    optimizer = torch.optim.Adam(trained, lr=settings.lr)
    for done in range(settings.episodes):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * done / settings.episodes))
        loss = episode_loss(learner, net, slow, pool, settings, rng=rng)
        if not math.isfinite(loss.item()):
            raise Diverged(f"loss is {loss.item()} after {done} episodes; lower lr (now {settings.lr})")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, settings.clip)
        optimizer.step()
        tick(done + 1)
    return {name: value.detach() for name, value in slow.items()}


def episode_loss(
    learner: Learner, net: Net, slow: Params, pool: Pool, settings: Training, *, rng: np.random.Generator
) -> Tensor:
    """Query cross-entropy of one drawn episode after adaptation on its support, batch norm in training mode."""
    way, shot, query = settings.way, settings.shot, settings.query
    chosen = draw(pool, way, shot, query, rng=rng)
    images = pool.images(np.concatenate([chosen.support.ravel(), chosen.query.ravel()]))
    z = net.body(slow, images, train=True)
    support = Support(z[: way * shot], torch.eye(way).repeat_interleave(shot, 0))
    fast = adapt(learner, slow, support)
    return F.cross_entropy(learner.predict(slow, fast, z[way * shot :]), torch.arange(way).repeat_interleave(query))
