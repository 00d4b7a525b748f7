"""Bilevel search: weights learn on tasks of some classes, architecture logits on tasks of the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgemeta.contracts import Params, Support
from edgemeta.data.episode import Pool, draw
from edgemeta.errors import BadConfig, BadData, Diverged
from edgemeta.learners.adam import Adam
from edgemeta.learners.outer import Tasks, gradients
from edgemeta.learners.protonet import protonet
from edgemeta.learners.shards import gather
from edgemeta.nets.relaxed import Alpha, Relaxed, skips

RADIUS = 0.01  # of the finite difference, over the gradient's norm (Liu 2019, section 2.3)
BETAS = (0.5, 0.999)  # of the logits' Adam (Liu 2019, section 3.1)
Loss = Callable[[Params, Alpha, Tasks], Tensor]


@dataclass(frozen=True)
class Bilevel:
    """Settings of the search by gradients; where nothing is said they are the paper's (Liu 2019, section 3.1).

    Departures, for hundreds of updates in place of 20,000: the weights have Adam, as all bodies here, and `alpha_lr`
    is not .0003; `unroll` stays the paper's rate of weights.
    """

    episodes: int = 400  # in all: an update of the weights takes one, an update of the logits one more
    order: int = 1  # 2: through one step of the weights, by finite differences
    warmup: float = 0.25  # share of the episodes in which weights alone learn (Liang 2019, arXiv:1909.06035)
    way: int = 20
    shot: int = 1
    query: int = 1
    lr: float = 5e-3  # of the weights' Adam, falling to zero along a cosine
    decay: float = 3e-4  # of the weights; more of it keeps a search from collapsing (Zela 2020, arXiv:1909.09656)
    unroll: float = 0.025  # length of the step that the second order looks through
    alpha_lr: float = 0.02
    alpha_decay: float = 1e-3
    clip: float = 5.0  # norm of the weights' gradient
    latency: float = 0.2  # weight of log(expected latency / cap) in the logits' loss
    most_skips: int | None = 2  # a search stops when its first cell comes to hold more (Liang 2019); None: never
    settle: float = 0.5  # share of the logits' episodes before which they are not stopped
    check_every: int = 20  # episodes between two looks at the skips
    width: int | None = None  # of the relaxation; None: as `nets.relaxed` has it
    depth: int | None = None
    stride: int | None = None
    none: bool = False

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise BadConfig(f"no search of order {self.order}; give 1, or 2 to look through a step of the weights")
        if not (0 <= self.warmup < 1 and 0 <= self.settle <= 1):
            raise BadConfig(f"warmup {self.warmup} and settle {self.settle} are shares; give 0 to 1")
        for name in ("episodes", "shot", "query", "lr", "unroll", "alpha_lr", "clip", "check_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadConfig(f"{name} = {getattr(self, name)!r} searches nothing; give more than 0")


@dataclass(frozen=True)
class Learned:
    """What a bilevel search came to."""

    alpha: Alpha
    params: Params = field(repr=False)
    episodes: int  # that it took
    stopped: str  # why it ended early; "" where it did not
    losses: tuple[float, ...] = field(repr=False)  # of the tasks that taught the logits, without the latency


def task_loss(relaxed: Relaxed, params: Params, alpha: Alpha, tasks: Tasks) -> Tensor:
    """() cross-entropy of one task's queries against the class means of its support (`learners.protonet`)."""
    learner, n = protonet(relaxed.net(alpha)), tasks.x.shape[1]
    z = relaxed.body(params, alpha, tasks.images)
    support = Support(z[:n], tasks.onehot[0].to(z))
    fast = learner.step(params, learner.start(params, support), support)
    return F.cross_entropy(learner.predict(params, fast, z[n:]), tasks.query_y[0])


def alpha_gradient(
    loss: Loss, params: Params, alpha: Alpha, taught: Tasks, judged: Tasks, *, unroll: float = 0.0
) -> tuple[float, Alpha]:
    """Loss of `judged`, and its gradient by `alpha`, at the weights or after a step of length `unroll` on `taught`.

    Source: Liu 2019, eq. 6 and, for the product with the second derivatives, eqs. 7 and 8.
    """
    if not unroll:
        value = loss(params, alpha, judged)
        return float(value.detach()), gradients(value, alpha)
    downhill = gradients(loss(params, alpha, taught), params)
    ahead = leaves({name: value - unroll * downhill[name] for name, value in params.items()})
    value = loss(ahead, alpha, judged)
    found = gradients(value, ahead | alpha)
    direct, along = {cell: found[cell] for cell in alpha}, {name: found[name] for name in params}
    norm = float(torch.linalg.vector_norm(torch.stack([step.norm() for step in along.values()])))
    if not 0 < norm < math.inf:
        return float(value.detach()), direct
    reach, sides = RADIUS / norm, []
    for sign in (1, -1):
        side = {name: value.detach() + sign * reach * along[name] for name, value in params.items()}
        sides.append(gradients(loss(side, alpha, taught), alpha))
    curved = {cell: (sides[0][cell] - sides[1][cell]) / (2 * reach) for cell in alpha}
    return float(value.detach()), {cell: direct[cell] - unroll * curved[cell] for cell in alpha}


def halves(pool: Pool, settings: Bilevel, *, rng: np.random.Generator) -> tuple[Pool, Pool]:
    """The classes of a pool that can be drawn, as two pools."""
    images = settings.shot + settings.query
    usable = rng.permutation([at for at, own in enumerate(pool.by_class) if len(own) >= images])
    if len(usable) < 4:
        has = f"{len(usable)} classes have {images} images"
        raise BadData(f"weights and architecture learn from 2 classes or more each: {has}; lower shot or add classes")
    parts = (sorted(usable[: len(usable) // 2]), sorted(usable[len(usable) // 2 :]))
    first, second = (
        replace(
            pool,
            by_class=tuple(pool.by_class[at] for at in part),
            class_names=tuple(pool.class_names[at] for at in part),
        )
        for part in parts
    )
    return first, second


def learn(
    relaxed: Relaxed, pool: Pool, settings: Bilevel, *, seed: int, penalty: Callable[[Alpha], Tensor] | None = None
) -> Learned:
    """Weights and logits in turn (Liu 2019, algorithm 1); deterministic given its arguments.

    `penalty` is added to the logits' loss: the expected latency, as a rule.
    """
    rng, start = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    params = protonet(relaxed.net({})).init(rng=start)
    run = _Run(
        relaxed, settings, halves(pool, settings, rng=rng), rng, leaves(params), leaves(relaxed.alpha(rng=start))
    )
    return run.learned(penalty)


class Guard:
    """Tells when the first cell comes to hold too many skip-connections (Liang 2019); `most` None: never."""

    def __init__(self, relaxed: Relaxed, most: int | None):
        self._relaxed, self._most = relaxed, most
        self.kept: Alpha | None = None  # the last logits without too many

    def check(self, alpha: Alpha) -> str:
        """Why to stop, if so: not before logits without too many were seen."""
        relaxed = self._relaxed
        held = skips(relaxed.space, relaxed.derive(alpha))[relaxed.kind.cells[0]]
        if self._most is None or held <= self._most:
            self.kept = detached(alpha)
            return ""
        return f"{held} skip-connections in the {relaxed.kind.cells[0]} cell" if self.kept else ""


class _Run:
    """A search in progress."""

    def __init__(
        self,
        relaxed: Relaxed,
        settings: Bilevel,
        pools: tuple[Pool, Pool],
        rng: np.random.Generator,
        params: Params,
        alpha: Alpha,
    ):
        self._relaxed, self._settings, self._pools, self._rng = relaxed, settings, pools, rng
        self._params, self._alpha = params, alpha
        self._loss = partial(task_loss, relaxed)
        self._by_weights = Adam(params.values(), settings.lr, decay=settings.decay)
        self._by_alpha = Adam(alpha.values(), settings.alpha_lr, betas=BETAS, decay=settings.alpha_decay)
        self._guard = Guard(relaxed, settings.most_skips)
        self._losses: list[float] = []

    def learned(self, penalty: Callable[[Alpha], Tensor] | None) -> Learned:
        settings, done, checked, stopped = self._settings, 0, 0, ""
        warm = settings.warmup * settings.episodes
        settled = warm + settings.settle * (settings.episodes - warm)
        while done < settings.episodes and not stopped:
            taught = self._task(0)
            if done >= warm:
                self._move_alpha(taught, penalty, done)
                done += 1
            self._move_weights(taught, done)
            done += 1
            if done >= settled and done - checked >= settings.check_every:
                checked, stopped = done, self._guard.check(self._alpha)
        alpha = self._guard.kept if stopped and self._guard.kept else detached(self._alpha)
        return Learned(alpha, detached(self._params), done, stopped, tuple(self._losses))

    def _task(self, half: int) -> Tasks:
        settings, pool = self._settings, self._pools[half]
        way = max(2, min(settings.way, len(pool.by_class)))
        return gather([pool], [(0, draw(pool, way, settings.shot, settings.query, rng=self._rng))])

    def _move_alpha(self, taught: Tasks, penalty: Callable[[Alpha], Tensor] | None, done: int) -> None:
        unroll = self._settings.unroll if self._settings.order == 2 else 0.0
        loss, gradient = alpha_gradient(self._loss, self._params, self._alpha, taught, self._task(1), unroll=unroll)
        self._require(loss, done)
        self._losses.append(loss)
        extra = gradients(penalty(self._alpha), self._alpha) if penalty else {}
        self._by_alpha.step([gradient[cell] + extra.get(cell, 0.0) for cell in self._alpha])

    def _move_weights(self, taught: Tasks, done: int) -> None:
        settings = self._settings
        self._by_weights.lr = settings.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done / settings.episodes)))
        loss = self._loss(self._params, self._alpha, taught)
        self._require(float(loss.detach()), done)
        for name, value in gradients(loss, self._params).items():
            self._params[name].grad = value
        torch.nn.utils.clip_grad_norm_(self._params.values(), settings.clip)
        self._by_weights.step([value.grad for value in self._params.values()])

    def _require(self, loss: float, done: int) -> None:
        if not math.isfinite(loss):
            settings = self._settings
            rates = f"lr (now {settings.lr:g}) or alpha_lr (now {settings.alpha_lr:g})"
            raise Diverged(f"darts: loss is {loss:.4g} after {done} of {settings.episodes} episodes; lower {rates}")


def leaves(values: Params) -> Params:
    """Copies that ask for a gradient."""
    return {name: value.detach().clone().requires_grad_() for name, value in values.items()}


def detached(values: Params) -> Params:
    """Copies that ask for none."""
    return {name: value.detach().clone() for name, value in values.items()}
