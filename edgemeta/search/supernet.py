"""Training a supernet on few-shot tasks, and scoring networks by the weights that they inherit from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgemeta.contracts import Learner, Params, Support
from edgemeta.data.episode import Pool, draw
from edgemeta.errors import BadConfig
from edgemeta.learners.evaluate import Score, evaluate, features, queries
from edgemeta.learners.outer import Meta, Tasks, asked
from edgemeta.learners.protonet import protonet
from edgemeta.learners.settings import Training, largest
from edgemeta.learners.shards import gather
from edgemeta.learners.train import adapt, train
from edgemeta.nets.supernet import Supernet, recalibrated
from edgemeta.space.space import Space
from edgemeta.types import Arch

UPDATES = "stat.updates"  # what a supernet has had: a statistic, so that a training that goes on knows where it was
TRIES = 100  # networks drawn before one is made smaller until it fits


@dataclass(frozen=True)
class Sandwich:
    """Settings of a supernet's training."""

    drawn: int = 2  # networks of an update beside a large and a small one
    distil: float = 0.5  # share of the large one's answers in what the others are taught, in the end
    most_mmacs: float = math.inf  # million multiply-accumulates: networks of more are not trained
    training: Training = field(default_factory=lambda: Training(episodes=6000, way=30))

    def __post_init__(self) -> None:
        if self.drawn < 0 or not 0 <= self.distil <= 1:
            raise BadConfig(f"drawn {self.drawn} and distil {self.distil} teach nothing; give 0 or more, and 0 to 1")
        if not self.most_mmacs > 0:
            raise BadConfig(f"no network has {self.most_mmacs:g} million multiply-accumulates; raise most_mmacs")
        if self.training.warmup or self.training.frozen or self.training.multi_step or self.training.patience:
            raise BadConfig("a supernet's training has no warmup, frozen, multi_step or patience; leave them at 0")

    def fits(self, space: Space, arch: Arch) -> bool:
        return _macs(space, arch) <= 1e6 * self.most_mmacs


def learn(
    net: Supernet,
    pools: Pool | Sequence[Pool],
    settings: Sandwich,
    *,
    seed: int,
    tick: Callable[[int], None] = lambda n: None,
    keep: Path | None = None,
    device: str = "cpu",
) -> Params:
    """Shared weights, trained from the start; deterministic given its arguments. The rest is as in `learners.train`."""
    shared = learner(net, settings, seed=seed)
    slow, rng = shared.init(rng=torch.Generator().manual_seed(seed)), np.random.default_rng(seed)
    return train(shared, slow, pools, settings.training, rng=rng, tick=tick, keep=keep, device=device)


def learner(net: Supernet, settings: Sandwich, *, seed: int) -> Learner:
    """Prototypical Networks whose slow parameters are shared ones, for `learners.train`.

    The loss of an update is the mean over a `sandwich` of networks. The large one is taught by labels, the others by
    its answers as well (in-place distillation, Yu 2019, arXiv:1903.05134; BigNAS, Yu 2020, arXiv:2003.11142).

    Departure: the share of its answers grows from none to `distil` along the training, and labels have the rest; a
    network that has learned nothing has nothing to teach.
    """
    few = protonet(net.net(_require_room(net.space, settings))._replace(init=net.init))

    def init(*, rng: torch.Generator) -> Params:
        return few.init(rng=rng) | {UPDATES: torch.zeros(())}

    def outer(slow: Params, tasks: Tasks, weights: Sequence[float]) -> Meta:
        update = int(slow[UPDATES])
        slow[UPDATES] += 1
        share = min(1.0, update * settings.training.tasks / max(1, settings.training.episodes))
        archs = sandwich(net.space, settings, update, seed=seed)
        return _meta_gradient(net, archs, slow, tasks, settings.distil * share)

    per = "" if net.per_kind else ", kinds shared"
    told = f"supernet of {net.space.name} (seed {seed}, drawn {settings.drawn}, distil {settings.distil:g}{per}"
    cap = f", {settings.most_mmacs:g} MMACs" if settings.most_mmacs < math.inf else ""
    return few._replace(name=f"{told}{cap})", init=init, outer=outer)


def _meta_gradient(net: Supernet, archs: Sequence[Arch], slow: Params, tasks: Tasks, distil: float) -> Meta:
    leaves, total = asked(slow), torch.zeros((), device=tasks.x.device)
    gradient = {name: torch.zeros_like(value) for name, value in leaves.items()}
    labels, answers = tasks.query_y.flatten(), None
    for arch in archs:
        logits = _logits(protonet(net.net(arch)), net.params(slow, arch), tasks)
        loss = F.cross_entropy(logits, labels)
        if answers is not None and distil:
            loss = torch.lerp(loss, F.cross_entropy(logits, answers), distil)
        answers = logits.detach().softmax(1) if answers is None else answers
        total += loss.detach() / len(archs)
        found = torch.autograd.grad(loss / len(archs), list(leaves.values()), allow_unused=True)
        for own, value in zip(gradient.values(), found, strict=True):
            if value is not None:
                own += value
    return Meta(total, gradient)


def _logits(few: Learner, slow: Params, tasks: Tasks) -> Tensor:
    """(tasks * queries, way) of every query; all images are normalised together."""
    n = tasks.onehot.shape[0] * tasks.onehot.shape[1]
    z = few.net.body(slow, tasks.images)
    support, query = z[:n].unflatten(0, tasks.onehot.shape[:2]), z[n:].unflatten(0, tasks.query_y.shape)
    fast = [adapt(few, slow, Support(*own)) for own in zip(support, tasks.onehot, strict=True)]
    return torch.cat([few.predict(slow, own, x) for own, x in zip(fast, query, strict=True)])


def inherited(net: Supernet, shared: Params, arch: Arch, batches: Sequence[Tensor]) -> tuple[Learner, Params]:
    """The learner of a network, and the weights that it inherits, with statistics of `batches` (`calibration`)."""
    own = net.net(arch)
    slow = {name: value for name, value in net.params(shared, arch).items() if name != UPDATES}
    return protonet(own), recalibrated(own, slow, batches)


def calibration(
    pools: Sequence[Pool], training: Training, batches: int = 16, *, rng: np.random.Generator
) -> list[Tensor]:
    """Images (n, C, H, W) of tasks as they are trained on, of each pool in turn."""
    training, found = training.suited(pools), []
    for i in range(batches):
        place = i % len(pools)
        drawn = draw(pools[place], largest(training.way), largest(training.shot), training.query, rng=rng)
        found.append(gather(pools, [(place, drawn)]).images)
    return found


def score(
    net: Supernet,
    shared: Params,
    arch: Arch,
    batches: Sequence[Tensor],
    judge: Pool,
    *,
    way: int = 5,
    shot: int = 1,
    episodes: int = 300,
    rng: np.random.Generator,
) -> Score:
    """Few-shot accuracy of a network on the classes of `judge`, with inherited weights and statistics of `batches`."""
    few, slow = inherited(net, shared, arch, batches)
    task = {"way": way, "shot": shot, "query": queries(judge, way, shot), "episodes": episodes}
    return evaluate(few, slow, judge, features(few, slow, judge), rng=rng, **task)


def sandwich(space: Space, settings: Sandwich, update: int, *, seed: int) -> list[Arch]:
    """The networks of an update: a large one, a small one, and others (sandwich rule, Yu 2019, arXiv:1903.05134).

    Options that are no numbers, kinds above all, are dealt: in every row of as many updates as a slot has options, each
    of the networks has each option once, and those of one update share them out evenly (strict fairness, FairNAS, Chu
    2019, arXiv:1907.01845). The others are drawn alike among what fits. Equal arguments give equal networks.

    Departures. Each has the kinds that were dealt to it: kinds share no weights, so each is to have its turn to be the
    largest. Under a cap there is no largest network: a large one is a small one, grown at random until nothing of it
    can grow alone.
    """
    rng = np.random.default_rng([seed, 0, update])
    large, small, *others = (_dealt(space, update, role, seed) for role in range(2 + settings.drawn))
    found = [_grown(space, settings, large, rng), small]
    return found + [_drawn(space, settings, arch, rng) for arch in others]


def _dealt(space: Space, update: int, role: int, seed: int) -> Arch:
    """The smallest network of the kinds that are a network's turn."""
    ladders, picks = _ladders(space), []
    for slot in range(len(space.slots)):
        row, turn = divmod(update, len(space.options(slot)))
        order = ladders.get(slot) or np.random.default_rng([seed, 1 + slot, row]).permutation(space.options(slot))
        picks.append(int(order[0 if slot in ladders else (role + turn) % len(order)]))
    return Arch(space.name, tuple(picks))


def _grown(space: Space, settings: Sandwich, arch: Arch, rng: np.random.Generator) -> Arch:
    ladders = _ladders(space)
    while ladders:
        slot = list(ladders)[rng.integers(len(ladders))]
        higher = ladders[slot][ladders[slot].index(arch.picks[slot]) + 1 :]
        if higher and settings.fits(space, arch.swap(slot, higher[0])):
            arch = arch.swap(slot, higher[0])
        else:
            del ladders[slot]
    return arch


def _drawn(space: Space, settings: Sandwich, arch: Arch, rng: np.random.Generator) -> Arch:
    """Of the same kinds; a large one where next to nothing fits."""
    for _ in range(TRIES):
        found = arch
        for slot, ladder in _ladders(space).items():
            found = found.swap(slot, ladder[rng.integers(len(ladder))])
        if settings.fits(space, found):
            return found
    return _grown(space, settings, arch, rng)


def _ladders(space: Space) -> dict[int, list[int]]:
    """Of each slot whose options are numbers, its picks from the smallest option to the largest."""
    return {
        slot: sorted(space.options(slot), key=options.__getitem__)
        for slot, (_, options) in enumerate(space.slots)
        if not isinstance(options[0], str)
    }


def _require_room(space: Space, settings: Sandwich) -> Arch:
    """The smallest network of the kinds that take most; refused where it does not fit."""
    arch = _dealt(space, 0, 0, 0)
    for slot in set(range(len(space.slots))) - set(_ladders(space)):
        arch = max((arch.swap(slot, pick) for pick in space.options(slot)), key=lambda other: _macs(space, other))
    if not settings.fits(space, arch):
        least = f"the smallest network of some kinds has {_macs(space, arch) / 1e6:.2f} million"
        raise BadConfig(f"{least} multiply-accumulates, {settings.most_mmacs:g} are allowed; raise most_mmacs")
    return arch


def _macs(space: Space, arch: Arch) -> int:
    return sum(op.macs for op in space.ops(arch))
