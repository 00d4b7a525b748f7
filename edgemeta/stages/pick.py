"""`edgemeta pick`: the best network of the zoo for a device, a budget and a folder of images, without any training."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgemeta import config as configs
from edgemeta.contracts import Additive, Latency, Learner, Params, Predictor, Support
from edgemeta.data.dataset import Dataset
from edgemeta.data.episode import Pool
from edgemeta.data.sources import load
from edgemeta.errors import BadData, BadProfile, Infeasible, flag
from edgemeta.latency import machine, measure
from edgemeta.latency import profile as profiles
from edgemeta.latency.table import predictor as predictor_for
from edgemeta.learners.evaluate import features
from edgemeta.learners.train import adapt
from edgemeta.lowering import bundle as bundles
from edgemeta.lowering.bundle import head_kib
from edgemeta.lowering.manifest import Manifest
from edgemeta.report.tables import table
from edgemeta.search import zoo as zoos
from edgemeta.search.feasible import violation
from edgemeta.search.jobs import DataSpec, save_weights
from edgemeta.search.problem import Problem
from edgemeta.search.zoo import Member, Zoo
from edgemeta.space.space import Space
from edgemeta.stages import assemble, device_side, precision, summary, telling
from edgemeta.stages.candidates import Candidate, Outcome, first_fitting
from edgemeta.stages.precision import Judge
from edgemeta.stages.run_folder import RunFolder
from edgemeta.terminal import Told, told
from edgemeta.types import Cost, Op, Profile, dotted

TIMED_S = 3.0  # to time every network of the zoo here, each at two moments or more
ASKED = 200  # images at most that are left out in turn
WORTH = 200  # a network's accuracy on other data counts like so many of the user's images: a handful tell little
SHOWN = 8  # candidates in the table


@dataclass(frozen=True)
class Choice:
    """A network of the zoo for this device and these images."""

    member: Member
    cost: Cost  # measured latency where the device is this machine, predicted elsewhere
    over: tuple[str, ...]  # the caps that it may pass, at a slow moment of the device
    known: float  # accuracy on held-out classes of what the zoo was trained on, 0..1
    own: float | None = None  # leave-one-out accuracy on the user's images; None where no class has two
    asked: int = 0  # images behind `own`

    @property
    def expected(self) -> float:
        """Both accuracies, each by what it counts."""
        return self.known if self.own is None else (WORTH * self.known + self.asked * self.own) / (WORTH + self.asked)


@final
class Timed:
    """Latencies of networks that were timed themselves, so nothing is predicted."""

    def __init__(self, profile: Profile, space: Space):
        self._ms = {space.ops(net.arch): net.timing.median_ms for net in profile.nets}
        self.head_ms = profile.overhead.get("head_ms", 0.0)
        self.slow_ratio = profile.overhead.get("slow_ratio", 1.0)
        self.per_ms_mj = profile.overhead.get("per_ms_mj")
        self.precision = profile.precision

    def latency(self, ops: Sequence[Op]) -> Latency:
        if tuple(ops) not in self._ms:
            raise BadProfile("a network was not timed here; delete the profile in the run folder to time all again")
        ms = self._ms[tuple(ops)]
        return Latency(ms, ms, ms)

    def additive(self, space: Any) -> Additive:
        raise BadProfile("whole networks were timed, which do not add up; run `edgemeta profile` for operators")


def run(config: configs.Pick, folder: RunFolder) -> Told:
    """Choose, write the bundle to `RUN/bundle`, teach it the folder's classes in `RUN/state.npz`, and tell."""
    zoo = zoos.read(config.zoo)
    spec, data = _images(config, zoo)
    here = config.device == assemble.HOST
    with folder.stage("profile"):
        profile = _timed_here(config, folder, zoo) if here else assemble.known_profile(config.device, zoo.space)
        predictor: Predictor = Timed(profile, zoo.space) if here else predictor_for(profile)
    head, weights = partial(head_kib, zoo.learner), folder.weights
    named: dict[str, Any] = {"device": profile.device, "head_kib": head, "seed": config.seed}
    named["int8"] = config.int8 or profile.precision == "int8"
    problem = Problem(zoo.space, predictor, config.cap, zoo.learner, spec, weights, **named)
    with folder.stage("pick"):
        timed = {net.arch for net in profile.nets}
        members = [member for member in zoo.members if not here or member.arch in timed]
        choices = ranked(zoo, members, problem, data, seed=config.seed)
        fitting = [choice for choice in choices if not choice.over]
        if not fitting:
            raise Infeasible(_advice(choices, problem))
        line = [_candidate(zoo, choice.member, folder) for choice in fitting]
        judge = judge_of(data, seed=config.seed) if problem.int8 else None
        winner, refused = first_fitting(folder.bundle, line, problem, profile, measure=here, judge=judge)
        _finish(config, folder, zoo, choices, winner, refused)
    doubts, found = profile.doubts if here else (), (folder, bundles.read(folder.bundle))
    lines = [*_told(config, *found, choices, winner, refused, profile), *data.notes]
    lines += [*(f"doubt: {doubt}" for doubt in doubts), *_next(config, folder)]
    return told("\n".join(lines), _facts(*found, choices, winner, refused, profile) | {"notes": [*data.notes, *doubts]})


def ranked(zoo: Zoo, members: Sequence[Member], problem: Problem, data: Dataset, *, seed: int) -> list[Choice]:
    """Those under the caps by the accuracy expected, best first, then the others by how far they are over."""
    counts = np.bincount(data.labels)
    shot = int(np.median(counts[counts > 0]))
    asked = _asked(data.labels, rng=np.random.default_rng(seed))
    choices = []
    for member in members:
        choice = Choice(
            member,
            problem.cost(member.arch),
            problem.bound(member.arch).over(problem.cap),
            member.accuracy("val", shot),
        )
        if not choice.over and len(asked):
            own = _own(zoo.net_learner(member), zoo.weights(member), data, asked)
            choice = replace(choice, own=own, asked=len(asked))
        choices.append(choice)
    return sorted(choices, key=lambda choice: (_far(choice, problem), -choice.expected, choice.cost.latency_ms))


def leave_one_out(learner: Learner, slow: Params, z: Tensor, y: Tensor, asked: Sequence[int] | np.ndarray) -> float:
    """Share of the examples at `asked` named rightly by all others. z (n, d) features, y (n,) int64 -> 0..1."""
    onehot, right = F.one_hot(y).float(), 0
    with torch.no_grad():
        for i in asked:
            others = onehot.clone()
            others[i] = 0  # a row of zeros is padding
            fast = adapt(learner, slow, Support(z, others))
            right += int(learner.predict(slow, fast, z[i : i + 1]).argmax() == y[i])
    return right / len(asked)


def _asked(labels: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Positions of up to ASKED images whose classes have others."""
    left = np.flatnonzero(np.bincount(labels)[labels] > 1)
    return np.sort(rng.permutation(left)[:ASKED])


def judge_of(data: Dataset, *, seed: int) -> Judge:
    """Of int8 bodies: the user's own images, up to ASKED of them left out in turn."""
    pool, asked = _pool(data), _asked(data.labels, rng=np.random.default_rng(seed))
    labels = torch.from_numpy(data.labels)

    def accuracy(learner: Learner, slow: Params, z: Tensor) -> float | None:
        return leave_one_out(learner, slow, z, labels, asked) if len(asked) else None

    told = f"{len(asked)} of your images, left out in turn"
    return Judge(precision.calibration(pool, seed=seed), pool, accuracy, told)


def _pool(data: Dataset) -> Pool:
    by_class = tuple(np.flatnonzero(data.labels == i) for i in range(len(data.class_names)))
    return Pool(torch.from_numpy(data.images), data.scale, by_class, data.class_names)


def _own(learner: Learner, slow: Params, data: Dataset, asked: np.ndarray) -> float:
    z = features(learner, slow, _pool(data))
    if z is None:
        raise BadData(f"{learner.name} changes the body; a zoo is of learners on features")
    return leave_one_out(learner, slow, z, torch.from_numpy(data.labels), asked)


def _far(choice: Choice, problem: Problem) -> float:
    return violation(problem.bound(choice.member.arch), problem.cap) if choice.over else 0.0


def _require_images(root: Path) -> None:
    """Of each class, before anything takes time."""
    for folder in sorted(path for path in root.glob("*") if path.is_dir() and path.name[0] != "."):
        if not any(path.is_file() for path in folder.rglob("*")):
            raise BadData(f"class {folder.name!r} in {root} holds no readable image; add some or remove it")


def _images(config: configs.Pick, zoo: Zoo) -> tuple[DataSpec, Dataset]:
    """The user's images as the networks have seen theirs: bright ink where those were of one channel."""
    shape = zoo.space.in_shape
    ink = "bright" if zoo.ink_high and shape[0] == 1 else "as-is"
    spec = DataSpec("folder", str(config.images.resolve()), "", shape, 0, ink)
    _require_images(config.images)
    data = load("folder", in_shape=shape, root=config.images, cache=Path(), ink=ink)  # a folder changes: read it anew
    if not (config.images / data.class_names[0]).is_dir():
        raise BadData(
            f"{config.images} is split into {', '.join(data.splits)}; name one of these folders with --images"
        )
    return spec, data


def _timed_here(config: configs.Pick, folder: RunFolder, zoo: Zoo) -> Profile:
    """The zoo's networks timed on this machine, once in a run folder: seconds, where all operators take a minute."""
    path = folder.profile(f"zoo-{zoo.digest[:8]}")
    if path.exists():
        kept = profiles.load(path)
        if kept.cpu == machine.cpu() and kept.versions == measure.versions():
            return kept
    archs = [member.arch for member in zoo.members]
    made = measure.measure_nets(zoo.space, archs, seed=config.seed, seconds=TIMED_S, progress=config.progress)
    profiles.save(made, path)
    return made


def _candidate(zoo: Zoo, member: Member, folder: RunFolder) -> Candidate:
    name = hashlib.sha256(f"{zoo.digest} {member.arch}".encode()).hexdigest()[:16]
    path = folder.weights / f"zoo-{name}.safetensors"
    if not path.exists():
        save_weights(path, zoo.weights(member))
    tests = tuple(row for row in member.tests if row["split"] == "test")
    return Candidate(member.arch, zoo.learner, path, member.episodes, tests)


def _finish(
    config: configs.Pick,
    folder: RunFolder,
    zoo: Zoo,
    choices: Sequence[Choice],
    winner: Outcome,
    refused: Sequence[Outcome],
) -> None:
    """What the bundle should know of its past, the state, and the note."""
    bundles.update_facts(folder.bundle, {"data": zoo.facts.get("data", "zoo"), "zoo": zoo.digest})
    summary.drop_siblings(folder.bundle)
    if _state(folder).exists():  # of another bundle: it may hold classes that were taught by hand
        _state(folder).replace(_state(folder).with_suffix(".previous.npz"))
    taught: dict[str, Any] = {"folder": config.images, "state": _state(folder), "keep": None}
    device_side.run("enroll", folder.bundle, 1, quiet=True, **taught)  # what it skips is in the notes already
    note = {
        "config": configs.as_json(config, configs.Pick),
        "command": " ".join(["edgemeta", *sys.argv[1:]]),
        "zoo": zoo.digest,
        "choices": [_noted(choice) for choice in choices],
        "winner": summary.outcome_note(winner),
        "refused": [summary.outcome_note(outcome) for outcome in refused],
    }
    folder.note("pick", note)


def _state(folder: RunFolder) -> Path:
    return folder.root / "state.npz"


def _noted(choice: Choice) -> dict[str, Any]:
    figures = {"known": choice.known, "own": choice.own, "asked": choice.asked, "expected": choice.expected}
    return {"picks": choice.member.arch.picks, "over": choice.over, "cost": choice.cost.to_json(), **figures}


def _advice(choices: Sequence[Choice], problem: Problem) -> str:
    if not choices:
        return "no network of the zoo could be timed here; run again on a quiet machine"
    nearest = choices[0]
    flags = " or ".join(map(flag, nearest.over))
    bound = problem.bound(nearest.member.arch)
    return (
        f"none of the {len(choices)} networks of the zoo fits {problem.cap} on {problem.device}; the nearest, "
        f"{nearest.member.arch}, may take {bound}; raise {flags}, or let `edgemeta search` look for smaller ones"
    )


def _told(
    config: configs.Pick,
    folder: RunFolder,
    manifest: Manifest,
    choices: Sequence[Choice],
    winner: Outcome,
    refused: Sequence[Outcome],
    profile: Profile,
) -> list[str]:
    """The candidates, and what was chosen and why."""
    fitting = [choice for choice in choices if not choice.over]
    broke = [outcome.candidate.arch for outcome in refused]
    rows = [_row(choice, winner.candidate.arch, broke) for choice in fitting[:SHOWN]]
    how = "measured here" if winner.measured else "predicted, not measured: the device is not this machine"
    best = next(choice for choice in fitting if choice.member.arch == winner.candidate.arch)
    own = f", {100 * best.own:.0f} % of {best.asked} of your images left out in turn" if best.own is not None else ""
    fit = f"{len(fitting)} of {len(choices)} trained networks fit {config.cap}"
    fit = fit if config.cap != Cost() else f"{len(choices)} trained networks"
    shown = f"; the best {SHOWN} are shown" if len(fitting) > SHOWN else ""
    return [
        table(rows),
        f"{fit} on {profile.device}{shown}",
        f"chosen {dotted(best.member.arch.picks)}: {winner.cost} ({how}); expected to be right most often: "
        f"{100 * best.known:.1f} % on held-out classes, 5 at a time{own}",
        *telling.costs_text(manifest),
        *telling.precision_text(folder.bundle, manifest),
    ]


def _facts(
    folder: RunFolder,
    manifest: Manifest,
    choices: Sequence[Choice],
    winner: Outcome,
    refused: Sequence[Outcome],
    profile: Profile,
) -> dict[str, Any]:
    return {
        "device": profile.device,
        "choices": [_noted(choice) for choice in choices],
        "chosen": summary.outcome_note(winner),
        "refused": [summary.outcome_note(outcome) for outcome in refused],
        "bundle": telling.bundle_facts(folder.bundle, manifest),
        "precision": manifest.facts.get("precision"),
        "state": _state(folder),
    }


def _next(config: configs.Pick, folder: RunFolder) -> list[str]:
    """What there is now, and what to do with it."""
    return [
        f"bundle: {folder.bundle}; the classes of {config.images} are taught, in {_state(folder)}",
        f"next: edgemeta predict --bundle {folder.bundle} --state {_state(folder)} --images PHOTOS",
    ]


def _row(choice: Choice, chosen: Any, broke: Sequence[Any]) -> dict[str, Any]:
    arch = choice.member.arch
    mark = "chosen" if arch == chosen else "over a cap when measured" if arch in broke else ""
    return {
        "network": dotted(arch.picks),
        "held_out_percent": 100 * choice.known,
        "yours_percent": None if choice.own is None else 100 * choice.own,
        "expected_percent": 100 * choice.expected,
        "predicted_ms": choice.cost.latency_ms,
        "ram_kib": choice.cost.ram_kib,
        "flash_kib": choice.cost.flash_kib,
        "": mark,
    }
