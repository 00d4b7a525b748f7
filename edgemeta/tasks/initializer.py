"""From a task to start weights: a mixture of learned bases, chosen by the task's embedding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from edgemeta.contracts import Fast, Learner, Params, Support
from edgemeta.data.episode import Pool
from edgemeta.errors import BadConfig, nearest
from edgemeta.learners.adam import Adam
from edgemeta.learners.outer import STATISTICS, Meta, Tasks, asked, laid_out, meta_gradient, trained
from edgemeta.learners.settings import Training, draw_tasks, largest
from edgemeta.tasks.embedding import Embed, embed

BASIS, SHARED, MIX = "basis.", "shared.", "mix."
RUNNING = STATISTICS + BASIS
UNITS = (STATISTICS + "embedding.mean", STATISTICS + "embedding.scale")
OWN = "start."  # in fast: the start weights of the task
VARIANCE = ".var"
LEAST = 1e-12  # variance: that of a channel which has died falls to zero, and zero has no logarithm
FARTHEST = 3.0  # standard deviations: a task farther out than those seen is taken for one there
FEWEST_WAYS = 5
SCOPES: dict[str, Callable[[str], bool]] = {  # which parameters have a basis each; tasks share the others
    "all": lambda name: True,
    "norm": lambda name: name.endswith((".gamma", ".beta")),
    "statistics": lambda name: False,
}


def initializer(
    learner: Learner,
    *,
    scope: str = "all",
    bases: int = 2,
    hidden: int = 32,
    noise: float = 0.1,
    describe: Embed = embed,
) -> Learner:
    """A learner whose slow parameters depend on the task: `learner` from sum_k m_k(task) basis_k.

    m = softmax(W2 tanh(W1 e + b1) + b2), e the embedding of the task's support in units of the tasks it was fitted to.
    One mixture of K kernels per input is CondConv (Yang 2019, arXiv:1904.04971, eq. 1); departures: the input is a
    task, the mixture is one for the whole network, and convex, so that a task on which the embedding says nothing gets
    a mean of the bases (as in Wortsman 2022, arXiv:2203.05482). Start weights by task as in MMAML (Vuorio 2019,
    arXiv:1910.13616), which modulates instead of mixing.

    slow: `basis.<name>` (K, ...) for each parameter of `learner` in `scope`, `shared.<name>` for the others, running
    statistics as `stat.basis.<name>`, the network `mix.*`, and `stat.embedding.mean`, `stat.embedding.scale` (e,).
    `noise` is what sets fresh bases apart, in standard deviations of each tensor. fast: the mixed parameters as
    `start.<name>`, and those of `learner`. Supports and queries are images, whatever `learner` works on. Train it,
    after `prepared`, and evaluate it like any other learner, on pools of several domains; `start_weights` then gives
    what `learner` starts from.
    """
    if bases < 1:
        raise BadConfig(f"bases is {bases}; give at least 1, which is one start for all tasks")

    def init(*, rng: torch.Generator) -> Params:
        slow = spread([learner.init(rng=rng)] * bases, scope=scope, noise=noise, rng=rng)
        e = len(describe(Support(torch.rand(2, *learner.net.in_shape, generator=rng), torch.eye(2))))
        for layer, (fan_in, fan_out) in enumerate(((e, hidden), (hidden, bases)), start=1):
            slow[f"{MIX}{layer}.weight"] = torch.randn(fan_in, fan_out, generator=rng) / math.sqrt(fan_in)
            slow[f"{MIX}{layer}.bias"] = torch.zeros(fan_out)
        return slow | dict(zip(UNITS, (torch.zeros(e), torch.ones(e)), strict=True))

    def start(slow: Params, support: Support) -> Fast:
        own = start_weights(slow, describe(support))
        return {OWN + name: value for name, value in own.items()} | learner.start(own, seen(own, support))

    def step(slow: Params, fast: Fast, support: Support) -> Fast:
        own, rest = _apart(fast)
        return {OWN + name: value for name, value in own.items()} | learner.step(own, rest, seen(own, support))

    def predict(slow: Params, fast: Fast, x: Tensor) -> Tensor:
        own, rest = _apart(fast)
        return learner.predict(own, rest, learner.net.body(own, x) if learner.on_features else x)

    def seen(own: Params, support: Support) -> Support:
        return support._replace(x=learner.net.body(own, support.x)) if learner.on_features else support

    name = f"initializer of {learner.name}"
    outer = partial(_outer, learner, describe)
    return learner._replace(
        name=name, on_features=False, init=init, start=start, step=step, predict=predict, outer=outer
    )


def spread(starts: Sequence[Params], *, scope: str = "all", noise: float = 0.0, rng: torch.Generator) -> Params:
    """`basis.*`, `stat.basis.*` and `shared.*` of K starts; what is shared is their mean. All bases but those of
    running statistics get `noise`, in standard deviations of each tensor.

    Starts that share an ancestor, say one network trained further on each domain, can be mixed: what lies between them
    is as good (Frankle 2020, arXiv:1912.05671). Between strangers it is not.
    """
    if scope not in SCOPES:
        raise BadConfig(f"no scope {scope!r}; {nearest(scope, SCOPES)}")
    made: Params = {}
    for name in starts[0]:
        stacked = torch.stack([own[name].detach() for own in starts])
        if name.startswith(STATISTICS):
            made[RUNNING + name.removeprefix(STATISTICS)] = stacked
        elif SCOPES[scope](name):
            size = stacked.std(correction=0) * noise
            made[BASIS + name] = stacked + size * torch.randn(stacked.shape, generator=rng)
        else:
            made[SHARED + name] = stacked.mean(0)
    return made


def prepared(
    slow: Params,
    pools: Sequence[Pool],
    settings: Training,
    *,
    rng: np.random.Generator,
    describe: Embed = embed,
    tasks: int = 256,
    sure: float = 0.9,
    steps: int = 200,
) -> Params:
    """`slow` with a mixture that tells the pools apart: each pool's tasks get `sure` of bases of their own.

    Left to the few-shot loss alone, the mixture may end at one basis for all tasks. Half of the tasks have the ways
    of `settings`, the others fewer, down to five: a device's tasks have, and what says which domain a task is of must
    not depend on it. The embedding is put into units of these tasks; a number equal for all of them has no say.
    """
    if settings.warmup or settings.frozen:
        said = f"warmup {settings.warmup:g} and frozen {settings.frozen} are for one body, and each task has its own"
        raise BadConfig(f"{said}; set both to 0, and `spread` a warmed-up start over the bases")
    one = replace(settings, tasks=1, shards=1).suited(pools)
    drawn = [draw_tasks(pools, _fewer(one, rng) if i % 2 else one, rng=rng)[0] for i in range(tasks)]
    described = torch.stack([describe(_support(pools[place], chosen.support)) for place, chosen in drawn])
    slow = slow | _units(described)
    target = _target(torch.tensor([place for place, _ in drawn]), slow[f"{MIX}2.bias"].shape[0], len(pools), sure)
    mix = {name: value.clone().requires_grad_() for name, value in slow.items() if name.startswith(MIX)}
    optimizer = Adam(mix.values(), 0.02)
    for _ in range(steps):
        loss = -(target * _logits(slow | mix, described).log_softmax(1)).sum(1).mean()
        optimizer.step(torch.autograd.grad(loss, list(mix.values())))
    return slow | {name: value.detach() for name, value in mix.items()}


def _target(places: Tensor, bases: int, pools: int, sure: float) -> Tensor:
    """Shares (tasks, bases): basis k is for pool k; where one kind is fewer, it is counted round."""
    own = (torch.arange(bases) - places[:, None]) % min(bases, pools) == 0
    shares = torch.where(own, sure / own.sum(1, keepdim=True), (1 - sure) / (~own).sum(1, keepdim=True).clamp_min(1))
    return shares / shares.sum(1, keepdim=True)


def _fewer(settings: Training, rng: np.random.Generator) -> Training:
    most = largest(settings.way)
    return replace(settings, way=int(rng.integers(min(FEWEST_WAYS, most), most + 1)))


def _support(pool: Pool, positions: np.ndarray) -> Support:
    way, shot = positions.shape
    return Support(pool.images(positions.ravel()), torch.eye(way).repeat_interleave(shot, 0))


def _units(described: Tensor) -> Params:
    mean, deviation = described.mean(0), described.std(0, correction=0)
    constant = deviation < 1e-4 * (1 + mean.abs())
    return dict(zip(UNITS, (mean, torch.where(constant, 0.0, 1 / deviation.clamp_min(1e-12))), strict=True))


def _logits(slow: Params, described: Tensor) -> Tensor:
    """(..., K) of embeddings (..., e)."""
    mean, scale = (slow[name] for name in UNITS)
    e = ((described - mean) * scale).clamp(-FARTHEST, FARTHEST)
    z = torch.tanh(e @ slow[f"{MIX}1.weight"] + slow[f"{MIX}1.bias"])
    return z @ slow[f"{MIX}2.weight"] + slow[f"{MIX}2.bias"]


def mixture(slow: Params, e: Tensor) -> Tensor:
    """Shares of the bases (K,), which add up to one, for a task's embedding e (e,)."""
    return torch.softmax(_logits(slow, e), 0)


def start_weights(slow: Params, e: Tensor) -> Params:
    """What the learner starts from on a task, e.g. `start_weights(slow, embed(support))`, the support of images."""
    return mixed(slow, mixture(slow, e))


def mixed(slow: Params, shares: Tensor) -> Params:
    """The parameters of the learner at these shares (K,); variances are mixed as logarithms, so they stay positive."""
    found: Params = {}
    for name, value in slow.items():
        if name.startswith(BASIS):
            found[name.removeprefix(BASIS)] = laid_out(torch.tensordot(shares, value, 1))
        elif name.startswith(SHARED):
            found[name.removeprefix(SHARED)] = laid_out(value)
        elif name.startswith(RUNNING):
            own = shares.detach() @ (value.clamp_min(LEAST).log() if name.endswith(VARIANCE) else value)
            found[STATISTICS + name.removeprefix(RUNNING)] = own.exp() if name.endswith(VARIANCE) else own
    return found


def _outer(learner: Learner, describe: Embed, slow: Params, tasks: Tasks, weights: Sequence[float] = (1.0,)) -> Meta:
    """The learner's own meta-gradient at each task's start, brought back to bases and mixture by the chain rule.

    Works for every learner, whatever its outer loss is: what it says of its slow parameters is all that is needed.
    """
    leaves, losses, heads, slopes = asked(slow), [], [], []
    for t in range(len(tasks.x)):
        shares = mixture(slow, describe(Support(tasks.x[t], tasks.onehot[t])))
        start = mixed(slow, shares)
        own = {name: value.detach().clone() for name, value in start.items()}
        for value in trained(own).values():
            value.requires_grad_()
        before = {name: value.clone() for name, value in own.items() if name.startswith(STATISTICS)}
        meta = meta_gradient(learner, own, Tasks(*(field[t : t + 1] for field in tasks)), weights)
        _learn_statistics(slow, shares.detach(), before, own)
        losses.append(meta.loss)
        heads += [start[name] for name in meta.gradient]
        slopes += [value / len(tasks.x) for value in meta.gradient.values()]
    found = torch.autograd.grad(heads, list(leaves.values()), slopes, allow_unused=True)
    gradient = {
        name: torch.zeros_like(leaf) if value is None else value
        for (name, leaf), value in zip(leaves.items(), found, strict=True)
    }
    return Meta(torch.stack(losses).mean(), gradient)


def _learn_statistics(slow: Params, shares: Tensor, before: Params, after: Params) -> None:
    """Move the bases, in place, as little as makes their mixture what batch norm made of it.

    Source: normalised least mean squares (Nagumo & Noda 1967), of what each task's batch shows against its shares.
    """
    pull = (shares / shares.square().sum())[:, None]
    with torch.no_grad():
        for name, old in before.items():
            basis = slow[RUNNING + name.removeprefix(STATISTICS)]
            if name.endswith(VARIANCE):
                basis.clamp_min_(LEAST).mul_(((after[name] / old).log() * pull).exp())
            else:
                basis.add_(pull * (after[name] - old))


def _apart(fast: Fast) -> tuple[Params, Fast]:
    own = {name.removeprefix(OWN): value for name, value in fast.items() if name.startswith(OWN)}
    return own, {name: value for name, value in fast.items() if not name.startswith(OWN)}
