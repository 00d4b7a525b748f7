"""How well a supernet ranks: accuracy with inherited weights against accuracy after training alone.

    python tools/bench/supernet_rank.py --minutes 3 --supernet-minutes 45 --jobs 2 --run runs/supernet --json rank.json

Networks of `edge` with at most the work of Conv4-64 are drawn alike, and each is trained alone on several domains at
once, as those of the zoo are (`tools/make_zoo.py`). What is ranked by is their mean accuracy on validation classes, 5
ways, 1 and 5 shots. Beside the supernet stand what costs nothing (multiply-accumulates, parameters, a network with
random weights), 5 seconds of training, and 5 seconds that begin with what the supernet has. Every score without a
training has statistics of the training images. Intervals are of networks drawn again with replacement, the same ones
for all; `supernet_first` is the share of those draws in which the supernet ranks better than every baseline. `--run`
keeps everything: a killed command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from _common import digest, emit, parser, require_folder
from omniglot import affordable

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from edgemeta.config import default_cache
from edgemeta.contracts import Learner, Params
from edgemeta.errors import Infeasible
from edgemeta.files import write_json
from edgemeta.learners.memory import keep_freed_memory
from edgemeta.learners.protonet import protonet
from edgemeta.learners.train import train
from edgemeta.nets.build import build
from edgemeta.nets.supernet import recalibrated, supernet
from edgemeta.search.jobs import DataSpec, data_pool, load_weights, save_weights
from edgemeta.search.supernet import Sandwich, calibration, inherited, learn, learner
from edgemeta.search.workers import worker_pool
from edgemeta.space.named import named
from edgemeta.space.presets import SPACES, conv4_64
from edgemeta.space.space import Space
from edgemeta.types import FLOAT_BYTES, Arch
from tools.make_zoo import TRAINING, Work, domains, finished, score, tested

SHORT_S = 5.0
TRIES = 10_000
BASELINES = ("macs", "params", "random_init", "5s")
DRAWS = 2000  # of the intervals
QUICK = {
    "networks": 3,
    "episodes": 10,
    "updates": 2,
    "test_episodes": 10,
    "space": "tiny",
    "way": 5,
    "most_mmacs": 100.0,
}


@dataclass(frozen=True)
class Shared:
    """Train a supernet; what is done already is read instead."""

    space: str
    settings: Sandwich
    domains: tuple[DataSpec, ...]
    seconds: float  # of a processor
    updates: int  # instead of the time, where not 0
    seed: int
    folder: str
    at: str

    @property
    def path(self) -> Path:
        told = (self.space, self.settings, list(map(str, self.domains)), self.seconds, self.updates, self.seed)
        return Path(self.folder) / f"{digest(*told)}.safetensors"


@dataclass(frozen=True)
class Look:
    """Score a network by weights that it inherits, or by random ones; what is done already is read instead."""

    work: Work  # what it is tested on
    shared: str = ""  # a supernet's weights; "": random ones
    episodes: int = 0  # that it is trained for before

    @property
    def path(self) -> Path:
        told = (self.work.path.name, Path(self.shared).name, self.episodes)
        return Path(self.work.folder) / f"{digest(*told)}.json"


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    if any(spec.name == "omniglot" for spec in domains(args)):
        require_folder(args.data_root, "omniglot")
    space = SPACES[args.space](args.in_shape)
    job = _shared(space, args)
    archs = drawn(space, args.networks, job.settings.most_mmacs, seed=args.seed)
    rows = [row | sizes(space, row["arch"]) for row in measured(space, archs, job, args)]
    values, ranked = told(rows, seed=args.seed)
    extra = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    extra |= {"supernet": str(job.settings), "networks": [row | {"arch": str(row["arch"])} for row in rows]}
    extra["updates"] = json.loads(job.path.with_suffix(".plan").read_text())["updates"]
    return emit("supernet_rank", values, ranked, args.json, extra, goals=args.goals, quick=args.quick)


def drawn(space: Space, count: int, most_mmacs: float, *, seed: int) -> list[Arch]:
    """Distinct networks, drawn alike among those with no more work."""
    rng, found = Random(seed), dict[Any, Arch]()
    for _ in range(TRIES):
        arch = space.sample(rng=rng)
        if sizes(space, arch)["macs"] <= 1e6 * most_mmacs:
            found.setdefault(space.ops(arch), arch)
        if len(found) == count:
            return list(found.values())
    raise Infeasible(f"{len(found)} of {count} networks have at most {most_mmacs:g} MMACs; raise --most-mmacs")


def measured(space: Space, archs: Sequence[Arch], job: Shared, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each network: what it scores after training alone, and everything that might tell it before."""
    alone, count = _works(space, archs, args), len(archs)
    short = [replace(work, seconds=SHORT_S, episodes=args.episodes and max(1, args.episodes // 10)) for work in alone]
    looks = [Look(work, str(job.path)) for work in alone]
    with worker_pool(args.jobs) if args.jobs > 1 else nullcontext() as executor:
        run: Callable = executor.map if executor else map
        first = [(weights_of, job), *((finished, work) for work in alone + short)]
        _, *done = _said(run(_call, first + [(looked, Look(work)) for work in alone]), 1 + 3 * count)
        tuned = [replace(look, episodes=row["episodes"]) for look, row in zip(looks, done[count:], strict=False)]
        done += _said(run(looked, looks + tuned), 2 * count)
    for i, arch in enumerate(archs):
        own = dict(zip(("alone", "5s", "random_init", "supernet", "supernet_5s"), done[i::count], strict=True))
        facts = {"episodes": own["alone"]["episodes"], "score_s": own["supernet"]["seconds"]}
        yield {"arch": arch} | facts | {name: score(row["tests"]) for name, row in own.items()}


def _works(space: Space, archs: Sequence[Arch], args: argparse.Namespace) -> list[Work]:
    taught, folder = domains(args), str(args.run / "networks")
    how = (60 * args.minutes, args.episodes, args.test_episodes, args.seed, folder, args.accelerator)
    return [Work(arch, space.ops(arch), taught, ("val",), *how) for arch in archs]


def weights_of(job: Shared) -> dict[str, Any]:
    """Train a supernet for its time, whose updates are counted once: what was killed goes on with the same number."""
    if job.path.exists():
        return {"weights": str(job.path)}
    keep_freed_memory()
    net, plan = supernet(named(job.space)), job.path.with_suffix(".plan")
    pools = [data_pool(spec, "train") for spec in job.domains]
    training = job.settings.training
    if not plan.exists():
        few = learner(net, job.settings, seed=job.seed)
        slow = few.init(rng=torch.Generator().manual_seed(job.seed))
        write_json(plan, {"updates": job.updates or affordable(few, slow, pools[0], training, job.seconds).episodes})
    settings = replace(job.settings, training=training.lasting(json.loads(plan.read_text())["updates"]))
    keep = job.path.with_suffix(".checkpoint")
    save_weights(job.path, learn(net, pools, settings, seed=job.seed, keep=keep, device=job.at))
    keep.unlink(missing_ok=True)
    return {"weights": str(job.path)}


def looked(look: Look) -> dict[str, Any]:
    """Accuracies with statistics of the training images, and the seconds that they took."""
    if look.path.exists():
        return json.loads(look.path.read_text())
    work, began = look.work, time.process_time()
    few, slow = _weights(look)
    row = {"arch": str(work.arch), "tests": tested(work, few, slow), "seconds": time.process_time() - began}
    write_json(look.path, row)
    return row


def _weights(look: Look) -> tuple[Learner, Params]:
    work = look.work
    pools = [data_pool(spec, "train") for spec in work.domains]
    batches = calibration(pools, TRAINING, rng=np.random.default_rng(work.seed))
    if look.shared:
        few, slow = inherited(supernet(named(work.arch.space)), load_weights(look.shared), work.arch, batches)
    else:
        few = protonet(build(work.ops))
        slow = recalibrated(few.net, few.init(rng=torch.Generator().manual_seed(work.seed)), batches)
    if look.episodes:
        rng = np.random.default_rng(work.seed)
        slow = train(few, slow, pools, TRAINING.lasting(look.episodes), rng=rng, device=work.at)
    return few, slow


def told(rows: Sequence[Mapping[str, Any]], *, seed: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Kendall's tau-b of each predictor with accuracy alone: values, and rows with intervals."""
    truth, names = np.array([row["alone"] for row in rows]), ("supernet", *BASELINES, "supernet_5s")
    known = {name: np.array([row[name] for row in rows]) for name in names}
    again = np.random.default_rng(seed).integers(len(rows), size=(DRAWS, len(rows)))
    drawn = {name: tau(value[again], truth[again]) for name, value in known.items()}
    ranked: list[dict[str, Any]] = []
    for name, value in known.items():
        low, high = np.quantile(drawn[name], (0.025, 0.975))
        ranked.append({"by": name, "kendall_b": float(tau(value, truth)), "low": float(low), "high": float(high)})
    values = {"kendall_b" + ("" if row["by"] == "supernet" else f"_{row['by']}"): row["kendall_b"] for row in ranked}
    best = np.max([drawn[name] for name in BASELINES], axis=0)
    values |= {"kendall_b_low": ranked[0]["low"], "kendall_b_high": ranked[0]["high"]}
    values["supernet_first"] = float(np.mean(drawn["supernet"] > best))
    values |= {"score_s": float(np.mean([row["score_s"] for row in rows])), "alone_mean": float(truth.mean())}
    return values, ranked


def tau(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Kendall's tau-b (1945, doi:10.2307/2332303) of rankings (..., n) -> (...); 0 where one does not rank at all."""
    order, against = (np.sign(x[..., :, None] - x[..., None, :]) for x in (one, other))
    ranked = np.sqrt((order**2).sum((-1, -2)) * (against**2).sum((-1, -2)))
    return (order * against).sum((-1, -2)) / np.maximum(ranked, 1)


def _shared(space: Space, args: argparse.Namespace) -> Shared:
    most = args.most_mmacs or sizes(space, conv4_64(space))["macs"] / 1e6
    settings = Sandwich(args.drawn, args.distil, most, replace(Sandwich().training, way=args.way))
    rest = (60 * args.supernet_minutes, args.updates, args.seed, str(args.run / "supernet"), args.accelerator)
    return Shared(space.name, settings, domains(args), *rest)


def _call(task: tuple[Callable, Any]) -> dict[str, Any]:
    function, argument = task
    return function(argument)


def _said(rows: Iterable[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    for place, row in enumerate(rows):
        shown = f"{100 * score(row['tests']):.2f} % {row['arch']}" if "tests" in row else row["weights"]
        print(f"{place + 1}/{count} {shown}", flush=True)
        yield row


def sizes(space: Space, arch: Arch) -> dict[str, int]:
    """Multiply-accumulates and parameters, batch norm folded."""
    ops = space.ops(arch)
    return {"macs": sum(op.macs for op in ops), "params": sum(op.weight_bytes for op in ops) // FLOAT_BYTES}


def _shape(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    options = parser(__doc__.split("\n")[0], quick=QUICK)
    options.add_argument("--networks", type=int, default=40)
    options.add_argument("--minutes", type=float, default=3.0, help="processor time of each network's own training")
    options.add_argument("--episodes", type=int, default=0, help="instead of --minutes; needed with CUDA")
    options.add_argument("--supernet-minutes", type=float, default=45.0, help="processor time of the supernet's")
    options.add_argument("--updates", type=int, default=0, help="instead of --supernet-minutes; needed with CUDA")
    options.add_argument("--drawn", type=int, default=Sandwich().drawn, help="networks of an update beside two")
    options.add_argument("--distil", type=float, default=Sandwich().distil)
    options.add_argument("--way", type=int, default=Sandwich().training.way, help="of the supernet's tasks")
    options.add_argument("--most-mmacs", type=float, default=0.0, help="of every network; 0: those of Conv4-64")
    options.add_argument("--test-episodes", type=int, default=1000, help="episodes behind each accuracy")
    options.add_argument("--jobs", type=int, default=1, help="trainings beside each other, one core each")
    options.add_argument("--data", nargs="+", default=["glyphs"], help="what is trained on, NAME or NAME=ROOT each")
    options.add_argument("--data-root", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    options.add_argument("--space", default="edge", choices=("edge", "seq", "tiny"))
    options.add_argument("--in-shape", type=_shape, default=(1, 28, 28), help="channels,height,width")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--accelerator", default="cpu", choices=("cpu", "cuda"))
    options.add_argument("--cache", type=Path, default=default_cache(), help="folder for rendered data")
    options.add_argument("--run", type=Path, default=Path("runs/supernet"), help="keeps what is done")
    args = options.parse_args(argv)
    if args.accelerator == "cuda" and not (args.episodes and args.updates and torch.cuda.is_available()):
        options.error("--accelerator cuda needs --episodes, --updates and a device that torch sees; or use the CPU")
    if min(args.minutes, args.supernet_minutes) <= 0 or args.networks < 2 or args.test_episodes < 2:
        options.error("--minutes and --supernet-minutes are more than 0, --networks and --test-episodes 2 or more")
    torch.set_num_threads(1)
    return args


if __name__ == "__main__":
    sys.exit(main())
