"""Architectures whose latency is predicted in a second: looked up stage by stage, against one by one.

    python tools/bench/latency_speed.py --json latency_speed.json

One core, the `edge` space, random architectures given as a table of picks. Three predictors: operators of a profile
(`table`), a device seen ten times (`few_shot`), and multiply-accumulates (`per_mac`). Both ways answer the same, which
is checked; their times are taken in turns.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from _common import emit, parser

from edgemeta.contracts import Predictor
from edgemeta.latency import batch, cover, profile, table, unseen
from edgemeta.space.presets import SPACES
from edgemeta.space.space import Space
from edgemeta.types import Arch, NetTiming, Profile, Timing


def main() -> int:
    made = parser(__doc__.split("\n")[0], quick={"archs": 20_000, "single": 60, "repeats": 2})
    made.add_argument("--archs", type=int, default=1_000_000, help="architectures of a batch")
    made.add_argument("--single", type=int, default=2000, help="architectures evaluated one by one")
    made.add_argument("--repeats", type=int, default=5, help="times both ways are timed, in turns")
    args = made.parse_args()
    space = SPACES["edge"]()
    sizes = [len(options) for _, options in space.slots]
    picks = np.random.default_rng(0).integers(0, sizes, (args.archs, len(sizes)), dtype=np.uint8)
    timed = {name: _timed(space, known, picks, args.single, args.repeats) for name, known in _devices(space).items()}
    slowest = min(timed.values(), key=lambda row: row["archs_per_s"])
    values = {name: slowest[name] for name in ("archs_per_s", "times_faster")}
    values |= {f"archs_per_s_{name}": row["archs_per_s"] for name, row in timed.items()}
    values["largest_difference"] = max(row["largest_difference"] for row in timed.values())
    rows = [{"predictor": name, **row} for name, row in timed.items()]
    return emit("latency_speed", values, rows, args.json, {"repeats": args.repeats}, goals=args.goals, quick=args.quick)


def _devices(space: Space) -> dict[str, Profile]:
    """Made-up rates, a fixed share of each network's work: what a prediction takes does not depend on them."""
    null = profile.load("null")

    def ms(macs: int) -> float:
        return 0.002 + macs / 2e7

    rows = {key: Timing(ms(op.macs), 0.0, 1) for key, op in cover.operators(space).items()}
    few = unseen.support(space, 10, seed=0)
    nets = tuple(NetTiming(arch, Timing(sum(ms(op.macs) for op in space.ops(arch)), 0.0, 1)) for arch in few)
    return {
        "table": replace(null, overhead={"run_ms": 0.01}, ops=rows),
        "few_shot": replace(null, overhead={}, nets=nets),
        "per_mac": null,
    }


def _timed(space: Space, known: Profile, picks: np.ndarray, single: int, repeats: int) -> dict[str, float]:
    begin = time.perf_counter()
    predict = table.predictor(known)
    fit_s = time.perf_counter() - begin
    begin = time.perf_counter()
    laid = batch.layout(space, predict.additive(space))
    layout_s = time.perf_counter() - begin
    together, alone, apart = [], [], []
    archs = [Arch(space.name, tuple(map(int, row))) for row in picks[:single]]
    for turn in range(repeats):
        begin = time.perf_counter()
        many = laid.latency_ms(picks)
        together.append((time.perf_counter() - begin) / len(picks))
        begin = time.perf_counter()
        some = [_one(space, predict, arch) for arch in archs[turn::repeats]]
        alone.append((time.perf_counter() - begin) / len(some))
        apart.append(float(np.abs(many[:single][turn::repeats] / some - 1).max()))
    return {
        "archs_per_s": 1 / median(together),
        "one_by_one_per_s": 1 / median(alone),
        "times_faster": median(alone) / median(together),
        "fit_s": fit_s,
        "layout_s": layout_s,
        "largest_difference": max(apart),
    }


def _one(space: Space, predict: Predictor, arch: Arch) -> float:
    return predict.latency(space.ops(arch)).ms


if __name__ == "__main__":
    sys.exit(main())
