"""From nothing but the installed package to a checked bundle: device, cap and five images per class, no training.

    python tools/bench/first_bundle.py --json out.json

Runs `edgemeta pick` as a user would, in a fresh process and an empty run folder, on scans of classes that nothing was
trained on; then for the next device, and under the next cap. Accuracy is that of networks so picked beside the one that
`edgemeta search` finds from scratch in `--minutes` under the same cap: equal tasks of held-out images, classes drawn
anew for each, in a domain that both were trained on (glyphs of held-out scripts) and one that neither was (digits).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import emit, parser
from end_to_end import broken, timed
from PIL import Image
from torch import Tensor

from edgemeta.config import default_cache
from edgemeta.contracts import Learner, Params
from edgemeta.data.episode import Draw, Pool, draw, episode
from edgemeta.latency.measure import time_model
from edgemeta.latency.onnx_net import to_onnx
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import features
from edgemeta.learners.train import adapt, support_of
from edgemeta.lowering import bundle
from edgemeta.nets.build import build
from edgemeta.search import zoo
from edgemeta.search.jobs import DataSpec, data_pool, load_weights
from edgemeta.space.presets import LANDMARKS, edge
from edgemeta.stages.pick import WORTH, leave_one_out
from edgemeta.types import Arch

WAY, SHOT, QUERY = 5, 5, 10
SHARE, NEXT = 0.45, 0.8  # of Conv4-64's latency here: the first cap; of the first cap: the next one
OTHER_DEVICE, OTHER_MS = "intel-xeon-node-wasm", 1.0
CAPS = ["--ram-kib", "128", "--flash-kib", "512"]
QUICK = {"minutes": 0.2, "latency_ms": 0.3, "profile": "intel-xeon-ort-1t", "draws": 4, "tasks": 2}
ENDLESS = 1_000_000  # networks of the search from scratch: time ends it
DOMAINS = ("glyphs", "digits")


@dataclass(frozen=True)
class Trained:
    """A network with its features of a whole pool."""

    learner: Learner
    slow: Params
    z: Tensor  # (n, dim)
    known: float  # accuracy on validation classes, 0..1, where it comes from the zoo

    def share(self, task: Draw, pool: Pool) -> float:
        """Share of the queries named rightly after seeing the support."""
        asked = episode(pool, task, self.z)
        with torch.no_grad():
            fast = adapt(self.learner, self.slow, support_of(asked))
            guess = self.learner.predict(self.slow, fast, asked.query_x).argmax(1)
        return float((guess == asked.query_y).float().mean())

    def expected(self, task: Draw) -> float:
        """As `edgemeta pick` expects it from the support alone."""
        z, y = self.z[torch.as_tensor(task.support.ravel())], torch.arange(len(task.support))
        labels = y.repeat_interleave(task.support.shape[1])
        own = leave_one_out(self.learner, self.slow, z, labels, np.arange(len(z)))
        return (WORTH * self.known + len(z) * own) / (WORTH + len(z))


def main() -> int:
    args = _arguments()
    pools = {domain: source(domain, args.cache) for domain in DOMAINS}
    cap_ms = args.latency_ms or SHARE * conv4_64_ms()
    with tempfile.TemporaryDirectory() as temporary:
        root = args.keep or Path(temporary)
        scans = draw(pools["glyphs"], WAY, SHOT, QUERY, rng=np.random.default_rng(args.seed))
        write_scans(root / "images", pools["glyphs"], scans)
        seconds, caps, choices = first_and_next(root / "run", root / "images", cap_ms)
        found = scratch(root / "scratch", cap_ms, args) if args.minutes else None
        accuracies = [
            compared(domain, members(choices, pool), rival(*found[:2], pool) if found else None, pool, args)
            for domain, pool in pools.items()
        ]
    values = {
        "shipped_weights_s": seconds["first bundle"],
        "next_device_s": max(seconds["next cap"], seconds["next device"]),
        "broken_caps": sum(caps),
    }
    for row in accuracies:
        values |= {f"{row['what']}_{name}": value for name, value in row.items() if name != "what"}
    if found:
        values["scratch_s"] = found[2]
        values["accuracy_gap_vs_scratch"] = max(row["gap_percent"] for row in accuracies)
    settings = {"cap_ms": cap_ms, "minutes": args.minutes, "seed": args.seed, "draws": args.draws, "tasks": args.tasks}
    rows = [{"what": what, "seconds": spent} for what, spent in seconds.items()]
    return emit("first_bundle", values, rows + accuracies, args.json, settings, goals=args.goals, quick=args.quick)


def first_and_next(run: Path, images: Path, cap_ms: float) -> tuple[dict[str, float], list[bool], list[dict]]:
    """Seconds of each command, its start included, whether a bundle breaks a cap when measured again, and what the
    first one chose from."""
    shared = ["pick", "--run", str(run), "--images", str(images), "--no-progress", *CAPS]
    seconds = {"first bundle": timed([*shared, "--latency-ms", str(cap_ms)])}
    caps = [broken(run / "bundle")]
    choices = json.loads((run / "pick.json").read_text())["choices"]
    seconds["next cap"] = timed([*shared, "--latency-ms", str(NEXT * cap_ms)])
    caps.append(broken(run / "bundle"))
    seconds["next device"] = timed([*shared, "--device", OTHER_DEVICE, "--latency-ms", str(OTHER_MS)])
    bundle.read(run / "bundle")  # whole, though nothing here can time it
    return seconds, caps, choices


def scratch(run: Path, cap_ms: float, args: argparse.Namespace) -> tuple[Arch, Path, float]:
    """Network and weights that a search from nothing finds in so many minutes, and the seconds that it took.

    The profile before it is not counted.
    """
    shared = ["--run", str(run), "--no-progress", "--workers", str(args.workers)]
    if args.profile:
        shared += ["--device", args.profile]
    else:
        timed(["profile", *shared])
    time_s = ["--seconds", str(60 * args.minutes), "--trials", str(ENDLESS)]
    spent = timed(["search", "--latency-ms", str(cap_ms), *time_s, "--cache", str(args.cache), *CAPS, *shared])
    facts: Any = bundle.read(run / "bundle").facts
    return Arch(facts["space"], tuple(facts["picks"])), run / "weights" / facts["weights"], spent


def members(choices: Sequence[Mapping[str, Any]], pool: Pool) -> list[Trained]:
    """The networks that fitted the first device and cap."""
    shipped = zoo.read()
    known = {tuple(choice["picks"]): choice["known"] for choice in choices if not choice["over"]}
    found = [member for member in shipped.members if member.arch.picks in known]
    made = [(member, shipped.net_learner(member), shipped.weights(member)) for member in found]
    return [
        Trained(learner, slow, seen(learner, slow, pool), known[member.arch.picks]) for member, learner, slow in made
    ]


def rival(arch: Arch, weights: Path, pool: Pool) -> Trained:
    learner, slow = LEARNERS["protonet"](build(edge().ops(arch))), load_weights(weights)
    return Trained(learner, slow, seen(learner, slow, pool), 0.0)


def seen(learner: Learner, slow: Params, pool: Pool) -> Tensor:
    z = features(learner, slow, pool)
    assert z is not None  # class means leave the body alone
    return z


def compared(domain: str, nets: Sequence[Trained], other: Trained | None, pool: Pool, args: Any) -> dict[str, Any]:
    """Accuracy in percent over class draws, each with several tasks; the interval is over the draws."""
    rng, shares = np.random.default_rng([args.seed, 1]), []
    for _ in range(args.draws):
        chosen = draw(pool, WAY, SHOT, QUERY, rng=rng).classes
        five = replace(pool, by_class=tuple(pool.by_class[i] for i in chosen))
        tasks = [draw(five, WAY, SHOT, QUERY, rng=rng) for _ in range(args.tasks)]
        own = [max(nets, key=lambda net: net.expected(task)).share(task, pool) for task in tasks]
        theirs = [other.share(task, pool) for task in tasks] if other else own
        shares.append((np.mean(own), np.mean(theirs)))
    mine, against = 100 * np.array(shares).T
    row = {"what": domain, "zoo_percent": mine.mean(), "zoo_ci95": ci95(mine)}
    if other:
        row |= {"scratch_percent": against.mean(), "scratch_ci95": ci95(against)}
        row |= {"gap_percent": (against - mine).mean(), "gap_ci95": ci95(against - mine)}
    return {name: value if name == "what" else float(value) for name, value in row.items()}


def ci95(values: np.ndarray) -> float:
    return float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))


def write_scans(folder: Path, pool: Pool, task: Draw) -> None:
    """The support as dark ink on paper, a directory per class."""
    for label, positions in enumerate(task.support):
        (folder / f"class{label}").mkdir(parents=True)
        for i in positions:
            Image.fromarray(255 - pool.x[i, 0].numpy()).save(folder / f"class{label}" / f"{i}.png")


def source(domain: str, cache: Path) -> Pool:
    return data_pool(DataSpec(domain, None, str(cache), (1, 28, 28), 0), "test")


def conv4_64_ms() -> float:
    space = edge()
    model = to_onnx(space.ops(LANDMARKS["conv4-64"](space)), batch=1).SerializeToString()
    x = np.random.default_rng(0).random((1, *space.in_shape), dtype=np.float32)
    return float(np.median([time_model(model, {"x": x}).median_ms for _ in range(5)]))


def _arguments() -> argparse.Namespace:
    options = parser(__doc__.split("\n")[0], quick=QUICK)
    options.add_argument("--minutes", type=float, default=5.0, help="of the search from scratch; 0: none")
    options.add_argument("--latency-ms", type=float, help=f"first cap (default: {SHARE} of what Conv4-64 takes here)")
    options.add_argument("--profile", help="of the search from scratch, by name or file (default: this machine's)")
    options.add_argument("--draws", type=int, default=40, help="choices of five classes, in each domain")
    options.add_argument("--tasks", type=int, default=5, help="choices of their images")
    options.add_argument("--workers", type=int, default=2, help="processes of the search from scratch")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--cache", type=Path, default=default_cache(), help="folder for rendered data")
    options.add_argument("--keep", type=Path, help="folder to use and keep; must be new (default: a temporary one)")
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(main())
