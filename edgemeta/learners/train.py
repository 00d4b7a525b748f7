"""Meta-training: one loop for every learner of the registry."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgemeta.contracts import Fast, Learner, Net, Params, Support
from edgemeta.data.episode import Pool, check, require_variety
from edgemeta.errors import BadData, Diverged
from edgemeta.learners.adam import Adam
from edgemeta.learners.checkpoint import Progress, load_progress, save_progress
from edgemeta.learners.outer import laid_out, steps_of, trained
from edgemeta.learners.protonet import protonet
from edgemeta.learners.ranks import Ranks
from edgemeta.learners.settings import Training, draw_tasks
from edgemeta.learners.shards import Judge, Team, Update, gather
from edgemeta.types import Episode, text_of

BAD_UPDATES = 10  # in a row, after which a training is given up
RUNAWAY = 100.0  # times the loss of guessing: adaptation has run away, whether or not the loss is still a number


def support_of(episode: Episode) -> Support:
    """The support as learners take it; an episode that nothing can be learned from is refused."""
    check(episode)
    return Support(episode.support_x, F.one_hot(episode.support_y, episode.way).float())


def adapt(learner: Learner, slow: Params, support: Support) -> Fast:
    """`start`, then `step` as often as a device would."""
    fast = learner.start(slow, support)
    for _ in range(steps_of(learner, len(support.x))):
        fast = learner.step(slow, fast, support)
    return fast


def train(
    learner: Learner,
    slow: Params,
    pools: Pool | Sequence[Pool],
    settings: Training,
    *,
    rng: np.random.Generator,
    tick: Callable[[int], None] = lambda n: None,
    judge: Judge | None = None,
    keep: Path | None = None,
    team: Team | Ranks | None = None,
    device: str = "cpu",
) -> Params:
    """Meta-train `slow` with Adam and return new parameters; the argument is not touched.

    Several `pools` are several domains: each task comes from one of them, all alike. `tick` is called after every
    update with the number of episodes done, for progress bars and for stopping by an exception. With a `judge` the
    parameters that it likes best are returned. `keep` is a file: a training that was stopped and is called again with
    the same arguments goes on from it, to the same parameters as if it had not been stopped. It is the caller's to
    delete, once what is returned is safe.
    A `team` that has `protonet(learner.net)` and `learner` shares the work of an update; parameters depend on
    `settings.shards`, not on how many processes there are. Where it is `Ranks`, each process calls this with the same
    arguments, but for `tick` and `keep`, which are the leading one's.
    """
    pools, at = [pools] if isinstance(pools, Pool) else list(pools), torch.device(device)
    _require_usable(pools, learner.net)
    teacher = protonet(learner.net)
    own, warm = team or Team(lambda: [teacher, learner]), teacher.init(rng=torch.Generator())
    identity = _identity(learner, slow, pools, settings, rng, judge is not None)
    progress = load_progress(keep, identity, at) if keep else None
    if progress is None:  # the warm-up's head needs parameters, too
        fresh = {name: laid_out(_copy(value).to(at)) for name, value in (warm | dict(slow)).items()}
        progress = Progress(identity, fresh, rng)
    progress = own.begin(progress)
    places = {member.name: i for i, member in enumerate(own.learners)}  # of two with one name the later: the learner
    sides = [(places[name], tuple(params)) for name, params in ((teacher.name, warm), (learner.name, slow))]
    run, before = _Run(own, pools, sides, progress, tick, judge, keep, at), 0
    for which, phase in enumerate(phase.suited(pools) for phase in settings.phases()):
        if progress.phase == which:
            run.phase(phase, before)
        before += phase.episodes // (max(1, phase.frozen) if which else 1)
    found = progress.best or progress.slow
    return {name: found[name].detach().cpu() for name in slow}


def _require_usable(pools: Sequence[Pool], net: Net) -> None:
    for pool in pools:
        require_variety(pool)
        if tuple(pool.x.shape[1:]) != tuple(net.in_shape):
            has, wanted = text_of(pool.x.shape[1:]), text_of(net.in_shape)
            raise BadData(f"images are {has}, and the network takes {wanted}; load them with in_shape {wanted}")


def _identity(
    learner: Learner, slow: Params, pools: Sequence[Pool], settings: Training, rng: np.random.Generator, judged: bool
) -> str:
    """Equal for trainings that end at the same parameters, as far as can be seen: settings, start, stream and data."""
    said = (learner.name, learner.steps, learner.transductive, learner.net.ops, settings, rng.bit_generator.state)
    precision = () if learner.net.precision == "fp32" else (learner.net.precision,)
    found = hashlib.sha256(repr((said, judged, *precision)).encode())
    for name in sorted(slow):
        found.update(slow[name].detach().cpu().contiguous().numpy().tobytes())
    for pool in pools:
        sample = pool.x[:: max(1, len(pool.x) // 256)]
        found.update(repr((pool.x.shape, pool.scale, [len(own) for own in pool.by_class])).encode())
        found.update(sample.contiguous().numpy().tobytes())
    return found.hexdigest()


def _copy(value: Tensor) -> Tensor:
    return value.detach().clone()


@dataclass
class _Run:
    """A training in progress."""

    team: Team | Ranks
    pools: Sequence[Pool]
    sides: Sequence[tuple[int, tuple[str, ...]]]  # of each phase: place of its learner, names of its parameters
    progress: Progress
    tick: Callable[[int], None]
    judge: Judge | None
    keep: Path | None
    at: torch.device

    def phase(self, settings: Training, before: int) -> None:
        """Train until the phase's episodes are done, or validations get no better; `before` were those of other phases.

        A phase does not end on updates that failed: those after its last episode, with a rate of zero, tell whether
        the parameters are still good.
        """
        now, judge = self.progress, self.judge if self.progress.phase else None
        learner, weights = self.team.learners[self.sides[now.phase][0]], trained(self._own())
        if frozen := now.phase * settings.frozen:
            weights = {name: weights[name] for name in weights if name not in learner.net.init(rng=torch.Generator())}
            features = [embedded(learner.net, now.slow, pool, chunk=512, at=self.at) for pool in self.pools]
            self.pools = [replace(pool, x=z, scale=1.0) for pool, z in zip(self.pools, features, strict=True)]
        for value in weights.values():
            value.requires_grad_()
        optimizer = _adam(weights, settings, now)
        while (now.done < settings.episodes or now.bad) and not 0 < settings.patience <= now.stale:
            self._update(settings, weights, optimizer, before)
            last, now.done = now.done, now.done + settings.tasks
            self.tick(before + min(now.done, settings.episodes) // max(1, frozen))
            checked = now.done // settings.check_every > last // settings.check_every
            if judge and (checked or (now.done >= settings.episodes and not now.bad)):
                _validate(now, judge)
            if self.keep and checked:
                _note_moments(now, optimizer, weights)
                save_progress(self.keep, now)
        for value in weights.values():
            value.requires_grad_(False)
        now.phase, now.done, now.steps, now.bad = now.phase + 1, 0, 0, 0
        now.momentum, now.variance = {}, {}

    def _own(self) -> Params:
        return {name: self.progress.slow[name] for name in self.sides[self.progress.phase][1]}

    def _update(self, settings: Training, weights: Params, optimizer: Adam, before: int) -> None:
        """One update of the weights, the moments and the statistics; none of them where it has no finite gradient."""
        now, share = self.progress, min(1.0, self.progress.done / max(1, settings.episodes))
        optimizer.lr = settings.lr * 0.5 * (1 + math.cos(math.pi * share))
        drawn = draw_tasks(self.pools, settings, rng=now.rng)
        way, shot = drawn[0][1].support.shape
        place, tasks = self.sides[now.phase][0], gather(self.pools, drawn)
        counted = settings.weights(share, steps_of(self.team.learners[place], way * shot))
        update = self.team.update(place, self._own(), tasks, counted, shards=settings.shards, device=self.at)
        norm = float(torch.linalg.vector_norm(torch.stack([value.norm() for value in update.gradient.values()])))
        if not (update.loss < RUNAWAY * math.log(way) and math.isfinite(norm)):
            now.bad += 1
            if now.bad == BAD_UPDATES:
                raise self._diverged(update, way, before, settings)
            return
        now.bad, now.good = 0, {name: _copy(value) for name, value in now.slow.items()}
        shortened = min(1.0, settings.clip / (norm + 1e-6))
        optimizer.step([update.gradient[name] * shortened for name in weights])
        now.steps += 1
        now.slow.update(update.statistics)

    def _diverged(self, update: Update, way: int, before: int, settings: Training) -> Diverged:
        """What happened, what to lower, and the last parameters that gave a loss."""
        now = self.progress
        learner = self.team.learners[self.sides[now.phase][0]]
        good = {name: _copy((now.good or now.slow)[name]).cpu() for name in self.sides[1][1]}
        said = f"{learner.name}: loss is {update.loss:.4g} (guessing: {math.log(way):.2g}) {BAD_UPDATES} times running"
        said += f" after {before + min(now.done, settings.episodes)} episodes; lower lr (now {settings.lr:g})"
        rates = inner_rates(good) if learner.steps else ""
        return Diverged(said + (f" or the inner rates ({rates})" if rates else ""), good)


@torch.no_grad()
def embedded(net: Net, slow: Params, pool: Pool, *, chunk: int, at: torch.device | str = "cpu") -> Tensor:
    """Body features (n, dim) of every image of a pool, batch norm in inference mode: no image sees another."""
    positions = np.split(np.arange(len(pool.x)), range(chunk, len(pool.x), chunk))
    return torch.cat([net.body(slow, pool.images(part).to(at)).cpu() for part in positions])


def inner_rates(slow: Params) -> str:
    """The learned rates of a learner's steps, the largest of each group."""
    rates = {name.removesuffix(".log_lr"): value.exp() for name, value in slow.items() if name.endswith(".log_lr")}
    rates |= {name: value.abs() for name, value in slow.items() if name.startswith("rate.")}
    return ", ".join(f"{name} {value.max().item():.2g}" for name, value in rates.items())


def _adam(weights: Params, settings: Training, progress: Progress) -> Adam:
    """Adam, going on from the moments that were kept."""
    optimizer = Adam(weights.values(), settings.lr)
    if progress.momentum:
        optimizer.steps = progress.steps
        optimizer.means = [progress.momentum[name] for name in weights]
        optimizer.squares = [progress.variance[name] for name in weights]
    return optimizer


def _note_moments(progress: Progress, optimizer: Adam, weights: Params) -> None:
    progress.momentum = dict(zip(weights, optimizer.means, strict=True))
    progress.variance = dict(zip(weights, optimizer.squares, strict=True))


def _validate(progress: Progress, judge: Judge) -> None:
    score = judge({name: _copy(value).cpu() for name, value in progress.slow.items()})
    progress.stale += 1
    if progress.best_score is None or score > progress.best_score:
        progress.best = {name: _copy(value) for name, value in progress.slow.items()}
        progress.best_score, progress.stale = score, 0
