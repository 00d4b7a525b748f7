"""Make the policy of the meta-learned searcher that ships with the wheel, from networks that were trained briefly.

    python tools/make_zoo.py --networks 24 --minutes 3 --jobs 2 --data-root ../shared/data --run runs/zoo
    python tools/make_policy.py --scores runs/zoo/short --data-root ../shared/data

`--scores` are the results of the zoo's candidates: each was trained on all domains at once and tested on the validation
classes of each, so every domain with every number of shots is a source task. A Gaussian process over decisions and
costs carries their scores to thousands of networks; how well it does so is measured by leaving networks out. Source
devices are the profiles that ship, and simulated ones (edgemeta.latency.simulate).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import KFold, cross_val_predict

sys.path.insert(0, str(Path(__file__).resolve().parent / "bench"))
from _common import circumstances

from edgemeta.config import default_cache
from edgemeta.latency import batch, simulate
from edgemeta.latency import profile as profiles
from edgemeta.latency.parts import count
from edgemeta.latency.table import predictor
from edgemeta.search import knowledge
from edgemeta.search.jobs import DataSpec, data_pool
from edgemeta.search.metapolicy import Sources, little_known, meta_train
from edgemeta.space.named import named
from edgemeta.space.space import Space
from edgemeta.types import Arch

FEWEST = 12  # scored networks
FOLDS = 6


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    space, scored = _scored(args.scores)
    archs = list(dict.fromkeys([*scored, *_drawn(space, args.networks, args.seed)]))
    facts = {"networks_scored": len(scored), "networks": len(archs), "simulated_devices": args.simulated}
    points, rank = {}, {}
    for task in next(iter(scored.values())):
        own = {arch: tests[task] for arch, tests in scored.items()}
        points[task], rank[task] = carried(space, own, archs)
    print("rank correlation of networks left out:", {task: round(value, 3) for task, value in rank.items()})
    sources = Sources(
        np.array([arch.picks for arch in archs]),
        points,
        {task: _attributes(task, space, args) for task in points},
        _devices(space, archs, args.simulated, args.seed),
    )
    how = {"triples": args.triples, "steps": tuple(args.steps), "doubt": little_known(len(points))}
    found = meta_train(space, sources, seed=args.seed, **how)
    around = circumstances()
    facts |= {"left_out_spearman": rank, "seed": args.seed, "triples": args.triples, "tool": "tools/make_policy.py"}
    facts |= {name: around[name] for name in ("commit", "dirty", "date", "versions")}
    path = knowledge.write(args.out, found, space, facts)
    print(f"{path.stat().st_size} bytes -> {path}")
    return 0


def _scored(folder: Path) -> tuple[Space, dict[Arch, dict[str, float]]]:
    """Networks and their points on the validation classes of each task: a domain and a number of shots."""
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if len(rows) < FEWEST:
        sys.exit(f"{len(rows)} scored networks in {folder}, {FEWEST} are needed; run tools/make_zoo.py first")
    space = named(Arch.parse(rows[0]["arch"]).space)
    found = {}
    for row in rows:
        tests = [test for test in row["tests"] if test["split"] == "val"]
        found[Arch.parse(row["arch"])] = {f"{of['data']} {of['shot']}": 100 * of["accuracy"] for of in tests}
    return space, found


def _drawn(space: Space, networks: int, seed: int) -> list[Arch]:
    rng = Random(seed)
    return [space.sample(rng=rng) for _ in range(networks)]


def carried(space: Space, scored: Mapping[Arch, float], archs: Sequence[Arch]) -> tuple[np.ndarray, float]:
    """(archs,) points that scored networks tell of all, and the rank correlation with those left out in turn.

    The logarithm of the error is what is modelled: halving it is worth the same anywhere.
    """
    known, wanted = (np.array([_features(space, arch) for arch in some]) for some in (scored, archs))
    middle, spread = known.mean(0), known.std(0) + 1e-9
    errors = np.log(np.maximum(100.0 - np.array(list(scored.values())), 0.05))
    kernel = ConstantKernel(1.0) * RBF(math.sqrt(known.shape[1]), (0.5, 1e3)) + WhiteKernel(0.1)
    model = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=2, random_state=0)
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length or a noise at its bound is an answer, too
        left_out = cross_val_predict(model, (known - middle) / spread, errors, cv=folds)
        model.fit((known - middle) / spread, errors)
    return 100 - np.exp(model.predict((wanted - middle) / spread)), float(spearmanr(left_out, errors).statistic)


def _features(space: Space, arch: Arch) -> list[float]:
    """Decisions one by one, and what the network comes to: work, weights, width and resolution at its end."""
    picks = [float(pick == own) for own, (_, options) in zip(arch.picks, space.slots, strict=True)
             for pick in range(len(options))]  # fmt: skip
    ops = space.ops(arch)
    work, weights = sum(op.macs for op in ops), sum(op.weight_bytes for op in ops)
    return [*picks, *(3 * math.log(value) for value in (work, weights, math.prod(ops[-1].out_shape))), len(ops) / 3]


def _attributes(task: str, space: Space, args: argparse.Namespace) -> dict[str, float]:
    name, shot = task.split()
    folder = args.data_root / name if args.data_root else None
    root = str(folder.resolve()) if folder and folder.is_dir() else None
    pool = data_pool(DataSpec(name, root, str(args.cache), space.in_shape, 0), "train")
    return knowledge.attributes(pool, space, int(shot))


def _devices(space: Space, archs: Sequence[Arch], simulated: int, seed: int) -> dict[str, np.ndarray]:
    """Log latencies (archs,) on the real devices that ship and on simulated ones, whose unit means nothing."""
    picks = np.array([arch.picks for arch in archs])
    found = {
        own.device: np.log(batch.layout(space, predictor(own).additive(space)).latency_ms(picks))
        for own in profiles.measured()
    }
    parts, devices = (
        count([space.ops(arch) for arch in archs]),
        simulate.draw(simulated, rng=np.random.default_rng(seed)),
    )
    made = simulate.log_times(parts, devices, simulate.scales(parts, devices))
    return found | {f"simulated {i}": made[:, i] for i in range(simulated)}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    options.add_argument("--scores", type=Path, required=True, metavar="DIR", help="results of the zoo's candidates")
    options.add_argument("--networks", type=int, default=3000, help="networks that the policy is taught with")
    options.add_argument("--simulated", type=int, default=30, help="simulated devices beside the real ones")
    options.add_argument("--triples", type=int, default=3000, help="of task, device and budget, to learn from")
    options.add_argument("--steps", type=int, nargs=3, default=(150, 500, 250), help="updates of the three stages")
    options.add_argument("--data-root", type=Path, help="folder with omniglot/, where the zoo was trained on it")
    options.add_argument("--cache", type=Path, default=default_cache(), help="folder for rendered data")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=knowledge.SHIPPED)
    torch.set_num_threads(1)
    return options.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
