"""Make the zoo that ships with the wheel: small networks meta-trained well on several domains, in one file.

    python tools/make_zoo.py --networks 24 --minutes 3 --jobs 2 --data-root ../shared/data

Candidates are drawn over geometric ladders of latency (on the profiles that ship, relative to Conv4-64), RAM and flash,
well-known nets among them. Each is trained briefly; the best of each rung on validation classes is kept and trained for
the whole time. What is tested, on validation classes to choose by and on test classes to tell, are the weights as they
ship. `--run` keeps everything: a killed command goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent / "bench"))
from _common import circumstances
from omniglot import affordable

from edgemeta.config import default_cache
from edgemeta.contracts import Learner, Params
from edgemeta.data.episode import Pool
from edgemeta.files import write_json
from edgemeta.latency import profile as profiles
from edgemeta.latency.cost import cost
from edgemeta.latency.table import predictor
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import evaluate, features, queries
from edgemeta.learners.memory import keep_freed_memory
from edgemeta.learners.settings import Training
from edgemeta.learners.train import train
from edgemeta.nets.build import build
from edgemeta.search import zoo
from edgemeta.search.jobs import DataSpec, data_pool, load_data, load_weights, save_weights
from edgemeta.search.workers import worker_pool
from edgemeta.space.presets import SPACES, landmarks
from edgemeta.space.space import Space
from edgemeta.types import Arch, Cost, Op, Shape

LEARNER = "protonet"
TRAINING = Training(way=60)  # past the first minute more ways teach better (tools/bench/omniglot.py)
POOL = 4000  # networks drawn, of which each ladder takes its candidates
SHORT = 1 / 16  # of the time per network, for each candidate
LARGEST = 1.5  # times the mean size that the file has room for
SHARES = {"latency_ms": 0.5, "ram_kib": 0.25, "flash_kib": 0.25}  # of the networks, for each ladder
WAY, SHOTS = 5, (1, 5)
CLASSES, MOST = 150, 20
OTHER = "digits"  # a domain that is never trained on


@dataclass(frozen=True)
class Work:
    """Train one network and test it; what is done already is read instead."""

    arch: Arch
    ops: tuple[Op, ...]
    domains: tuple[DataSpec, ...]
    splits: tuple[str, ...]
    seconds: float  # of a processor
    episodes: int  # instead of the time, where not 0
    test_episodes: int
    seed: int
    folder: str
    at: str

    @property
    def path(self) -> Path:
        """Equal for works that end at the same figures."""
        told = (self.ops, list(map(str, self.domains)), self.splits, self.seconds, self.episodes)
        name = hashlib.sha256(repr((told, self.test_episodes, self.seed, TRAINING)).encode()).hexdigest()[:16]
        return Path(self.folder) / f"{name}.json"


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    space = SPACES[args.space](args.in_shape)
    measured = drawn(space, args)
    found, rungs = ladders(measured, landmarks(space), args)
    print(f"{len(found)} candidates for {len(rungs)} rungs", flush=True)
    short = _works(space, found, args, SHORT * 60 * args.minutes, ("val",), "short")
    scores = {row["arch"]: score(row["tests"]) for row in done(short, args.jobs)}
    chosen = within_budget(best_of_rungs(rungs, scores), space)
    print(f"{len(chosen)} networks are trained for the whole time", flush=True)
    rows = list(done(_works(space, chosen, args, 60 * args.minutes, ("val", "test"), "long"), args.jobs))
    trained = [
        (zoo.Member(row["arch"], row["episodes"], tuple(row["tests"])), load_weights(row["weights"])) for row in rows
    ]
    trained.sort(key=lambda entry: measured[entry[0].arch].latency_ms)
    specs = domains(args)
    inks = {load_data(spec).ink_high for spec in specs}
    path = zoo.write(args.out, trained, learner=LEARNER, ink_high=inks == {True}, facts=_facts(args, specs))
    print(f"{len(trained)} networks, {path.stat().st_size} bytes -> {path}")
    return 0


def drawn(space: Space, args: argparse.Namespace) -> dict[Arch, Cost]:
    """Networks small enough, and what they cost; latency is relative to the first landmark, mean over the devices."""
    rng, known = Random(args.seed), landmarks(space)
    archs = dict.fromkeys([*known, *(space.sample(rng=rng) for _ in range(args.pool))])
    room = LARGEST * zoo.MAX_BYTES / args.networks
    small = [arch for arch in archs if stored_bytes(space.ops(arch)) <= room]
    devices = map(profiles.load, args.devices) if args.devices else profiles.measured()
    predictors = [predictor(profile) for profile in devices]
    base = [cost(space.ops((known or small)[0]), each).latency_ms for each in predictors]
    found = {}
    for arch in small:
        costs = [cost(space.ops(arch), each) for each in predictors]
        logs = [math.log(own.latency_ms / whole) for own, whole in zip(costs, base, strict=True)]
        found[arch] = replace(costs[0], latency_ms=math.exp(sum(logs) / len(logs)))
    return found


def ladders(
    measured: dict[Arch, Cost], known: Sequence[Arch], args: argparse.Namespace
) -> tuple[list[Arch], list[list[Arch]]]:
    """The candidates, and those of each rung: the well-known nets in it, and others that no rung before it has."""
    rungs: list[list[Arch]] = []
    found: dict[Arch, None] = {}
    for measure, share in SHARES.items():
        count = max(1, round(share * args.networks))
        logs = {arch: math.log(getattr(own, measure)) for arch, own in measured.items()}
        low, step = min(logs.values()), (max(logs.values()) - min(logs.values())) / count or 1.0
        rows: list[list[Arch]] = [[] for _ in range(count)]
        for arch, value in logs.items():
            rows[min(count - 1, int((value - low) / step))].append(arch)
        for row in filter(None, rows):
            fresh = [arch for arch in row if arch not in found]
            rungs.append([arch for arch in row if arch in known] + fresh[: args.each])
            found |= dict.fromkeys(rungs[-1])
    return list(found), rungs


def best_of_rungs(rungs: Iterable[Sequence[Arch]], scores: dict[Arch, float]) -> list[Arch]:
    """One network of each rung; the next best where another rung has it already."""
    chosen: list[Arch] = []
    for rung in rungs:
        ranked = sorted((arch for arch in rung if arch not in chosen), key=lambda arch: -scores[arch])
        chosen += ranked[:1]
    return chosen


def within_budget(chosen: list[Arch], space: Space) -> list[Arch]:
    """Without the largest ones that the file has no room for."""
    kept = sorted(chosen, key=lambda arch: stored_bytes(space.ops(arch)))
    while sum(stored_bytes(space.ops(arch)) for arch in kept) > zoo.MAX_BYTES:
        print(f"no room for {kept.pop()}", flush=True)
    return kept


def stored_bytes(ops: Sequence[Op]) -> int:
    """About what a network takes in the file: kernels of 2 bytes, four vectors of 4, and the names of five tensors."""
    return 2000 + sum(2 * math.prod(op.weight_shape) + 16 * op.out_shape[0] + 500 for op in ops if op.kind == "conv")


def done(works: Sequence[Work], jobs: int) -> Iterable[dict[str, Any]]:
    """What became of each, in order."""
    with worker_pool(jobs) if jobs > 1 else nullcontext() as executor:
        run: Callable = executor.map if executor else map
        for place, (work, row) in enumerate(zip(works, run(finished, works), strict=True)):
            print(f"{place + 1}/{len(works)} {row['episodes']} episodes {100 * score(row['tests']):.2f} %", flush=True)
            yield row | {"arch": work.arch, "weights": str(work.path.with_suffix(".safetensors"))}


def finished(work: Work) -> dict[str, Any]:
    """The row of a work: read where it was done before."""
    if work.path.exists():
        return json.loads(work.path.read_text())
    keep_freed_memory()
    learner = LEARNERS[LEARNER](build(work.ops))
    slow = learner.init(rng=torch.Generator().manual_seed(work.seed))
    pools = [data_pool(spec, "train") for spec in work.domains]
    plan, weights = work.path.with_suffix(".plan"), work.path.with_suffix(".safetensors")
    if not plan.exists():  # how long training takes is measured once: what was killed goes on with the same settings
        episodes = work.episodes or affordable(learner, slow, pools[0], TRAINING, work.seconds).episodes
        write_json(plan, {"episodes": episodes})
    training = TRAINING.lasting(json.loads(plan.read_text())["episodes"])
    keep = work.path.with_suffix(".checkpoint")
    rng = np.random.default_rng(work.seed)
    save_weights(weights, zoo.rounded(train(learner, slow, pools, training, rng=rng, keep=keep, device=work.at)))
    row = {"arch": str(work.arch), "episodes": training.episodes, "tests": tested(work, learner, load_weights(weights))}
    write_json(work.path, row)
    keep.unlink(missing_ok=True)
    return row


def tested(work: Work, learner: Learner, slow: Params) -> list[dict[str, Any]]:
    """Accuracies on held-out classes of each domain, and on the domain that nothing was trained on."""
    sets = [(spec, split) for split in work.splits for spec in work.domains]
    if "test" in work.splits:
        sets.append((replace(work.domains[0], name=OTHER, root=None), "test"))
    rows = []
    for spec, split in sets:
        judge = thinned(data_pool(spec, split))
        z = features(learner, slow, judge)
        for shot in SHOTS:
            task = {"way": min(WAY, len(judge.by_class)), "shot": shot, "query": queries(judge, WAY, shot)}
            rng = np.random.default_rng([work.seed, shot])
            found = evaluate(learner, slow, judge, z, episodes=work.test_episodes, rng=rng, **task)
            row = {"learner": LEARNER, "data": spec.name, "split": split, "way": task["way"], "shot": shot}
            rows.append(row | {"accuracy": found.mean, "ci95": found.ci95, "episodes": found.episodes})
    return rows


def thinned(pool: Pool) -> Pool:
    """At most CLASSES of a pool's classes, evenly chosen, and MOST images of each: more cost time and tell little."""
    places = np.linspace(0, len(pool.by_class) - 1, min(CLASSES, len(pool.by_class))).round().astype(int)
    kept = [pool.by_class[place][:MOST] for place in places]
    by_class = tuple(np.split(np.arange(sum(map(len, kept))), np.cumsum([len(own) for own in kept])[:-1]))
    names = tuple(pool.class_names[place] for place in places)
    return Pool(pool.x[torch.from_numpy(np.concatenate(kept))], pool.scale, by_class, names)


def score(tests: Sequence[dict[str, Any]]) -> float:
    """Mean accuracy on validation classes, over domains and numbers of shots."""
    return float(np.mean([row["accuracy"] for row in tests if row["split"] == "val"]))


def domains(args: argparse.Namespace) -> tuple[DataSpec, ...]:
    """What is trained on, NAME or NAME=ROOT each, and Omniglot where its folder is named."""
    named = [entry.partition("=")[::2] for entry in args.data]
    if args.data_root:
        named.append(("omniglot", str(args.data_root / "omniglot")))
    roots = [(name, str(Path(root).resolve()) if root else None) for name, root in named]
    return tuple(DataSpec(name, root, str(args.cache), args.in_shape, 0) for name, root in roots)


def _works(
    space: Space, archs: Sequence[Arch], args: argparse.Namespace, seconds: float, splits: tuple[str, ...], stage: str
) -> list[Work]:
    episodes = math.ceil(args.episodes * seconds / (60 * args.minutes)) if args.episodes else 0
    shared = (domains(args), splits, seconds, episodes, args.test_episodes, args.seed, str(args.run / stage))
    return [Work(arch, space.ops(arch), *shared, args.accelerator) for arch in archs]


def _facts(args: argparse.Namespace, specs: Sequence[DataSpec]) -> dict[str, Any]:
    around = circumstances()
    kept = {name: around[name] for name in ("commit", "dirty", "date", "versions", "cpu")}
    settings = {
        name: getattr(args, name) for name in ("networks", "each", "minutes", "episodes", "seed", "accelerator")
    }
    data = "+".join(spec.name for spec in specs)
    return {"data": data, "training": asdict(TRAINING), "settings": settings, "tool": "tools/make_zoo.py", **kept}


def _shape(text: str) -> Shape:
    channels, height, width = map(int, text.split(","))
    return channels, height, width


def _arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    options.add_argument("--networks", type=int, default=16, help="networks to keep, about")
    options.add_argument("--each", type=int, default=4, help="candidates of each rung")
    options.add_argument("--minutes", type=float, default=4.0, help="processor time of each network's training")
    options.add_argument("--episodes", type=int, default=0, help="instead of --minutes; needed with CUDA")
    options.add_argument("--jobs", type=int, default=1, help="networks trained beside each other, one core each")
    options.add_argument("--data", nargs="+", default=["glyphs"], help="what is trained on, NAME or NAME=ROOT each")
    options.add_argument("--data-root", type=Path, help="folder with omniglot/ (MIT licence), to train on it as well")
    options.add_argument("--test-episodes", type=int, default=1000, help="episodes behind each accuracy")
    options.add_argument(
        "--devices", nargs="+", help="profiles of the latency ladder (default: the real ones that ship)"
    )
    options.add_argument("--space", default="edge", choices=SPACES)
    options.add_argument("--in-shape", type=_shape, default=(1, 28, 28), help="channels,height,width")
    options.add_argument("--pool", type=int, default=POOL, help="networks drawn to choose candidates from")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--accelerator", default="cpu", choices=("cpu", "cuda"))
    options.add_argument("--cache", type=Path, default=default_cache(), help="folder for rendered data")
    options.add_argument("--run", type=Path, default=Path("runs/zoo"), help="keeps what is done")
    options.add_argument("--out", type=Path, default=zoo.SHIPPED)
    options.add_argument("--quick", action="store_true", help="4 networks, moments of training: to see that it works")
    return _checked(options, argv)


def _checked(options: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    args = options.parse_args(argv)
    if args.quick:
        args.networks, args.each, args.test_episodes, args.episodes = 4, 1, 50, args.episodes or 40
    if args.accelerator == "cuda" and not (args.episodes and torch.cuda.is_available()):
        options.error("--accelerator cuda needs --episodes, and a device that torch sees; leave it out to use the CPU")
    if min(args.networks, args.each, args.pool, args.minutes) <= 0 or args.test_episodes < 2:
        options.error("--networks, --each, --pool and --minutes are more than 0, --test-episodes 2 or more")
    torch.set_num_threads(1)
    return args


if __name__ == "__main__":
    sys.exit(main())
