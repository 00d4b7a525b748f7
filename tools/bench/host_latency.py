"""Predicted against measured latency of random whole networks on this machine.

    python tools/bench/host_latency.py --nets 200 --json host_latency.json

The machine is profiled first (or `--profile PATH` is read), then fresh random architectures of the space are timed:
none of them was timed for the profile. Each is timed at several moments, every time in a new session, and its median is
taken as measured, with no correction of any kind; ONNX Runtime, one thread, float32, batch 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from random import Random
from statistics import median

import numpy as np
from _common import emit, parser
from _common import table as table_of
from scipy.stats import spearmanr
from tqdm import tqdm

from edgemeta.latency import measure, profile, table
from edgemeta.latency.onnx_net import to_onnx
from edgemeta.space.presets import SPACES
from edgemeta.space.space import Space
from edgemeta.types import Arch, Profile

_TEST_SEED = 1_000_003  # added to --seed, so that the test draws are not the profile's


def main() -> int:
    args = _arguments()
    space = SPACES[args.space]()
    begin = time.perf_counter()
    known = profile.load(args.profile) if args.profile else measure.measure_host(space, seed=args.seed)
    facts = {"device": known.device, "governor": known.governor, "profile_s": time.perf_counter() - begin}
    facts |= {"overhead": dict(known.overhead), "measured_on": known.measured_on, "space": space.name}
    archs = _unseen(space, known, args.nets, seed=args.seed)
    rows = _rows(space, known, archs, _measure(space, archs, moments=args.moments, seed=args.seed))
    sizes = _by_size(rows)
    facts |= {"by_size": sizes, "moments": args.moments, "seed": args.seed}
    print(table_of(sizes), end="\n\n")
    return emit("host_latency", _values(rows), rows, args.json, facts, goals=args.goals)


def _arguments() -> argparse.Namespace:
    made = parser("Predicted against measured latency of random whole networks on this machine.")
    made.add_argument("--space", choices=SPACES, default="edge", help="search space")
    made.add_argument("--nets", type=int, default=200, help="test networks")
    made.add_argument("--moments", type=int, default=8, help="timings of each network, spread in time")
    made.add_argument("--seed", type=int, default=0, help="of the profile and of the test networks")
    made.add_argument("--profile", type=Path, metavar="FILE", help="judge this profile instead of measuring one")
    return made.parse_args()


def _unseen(space: Space, known: Profile, count: int, *, seed: int) -> list[Arch]:
    """Uniform random architectures, none of which the profile was calibrated on."""
    rng, seen = Random(seed + _TEST_SEED), {net.arch for net in known.nets}
    found: list[Arch] = []
    while len(found) < count:
        arch = space.sample(rng=rng)
        if arch not in seen:
            seen.add(arch)
            found.append(arch)
    return found


def _measure(space: Space, archs: list[Arch], *, moments: int, seed: int) -> list[list[float]]:
    """Milliseconds of each architecture at each moment: all of them once, in random order, then all again."""
    found: list[list[float]] = [[] for _ in archs]
    x = np.random.default_rng(seed).standard_normal((1, *space.in_shape), dtype=np.float32)
    models = [to_onnx(space.ops(arch), batch=1).SerializeToString() for arch in archs]
    order = list(range(len(archs)))
    with tqdm(total=moments * len(archs), desc="measuring", unit="net") as bar:
        for moment in range(moments):
            Random(f"{seed}/{moment}").shuffle(order)
            for i in order:
                timing = measure.time_model(models[i], {"x": x}, max_repeats=40, max_seconds=0.05)
                found[i].append(timing.median_ms)
                bar.update()
    return found


def _rows(space: Space, known: Profile, archs: list[Arch], measured: list[list[float]]) -> list[dict]:
    predict = table.predictor(known)
    rows = []
    for arch, moments in zip(archs, measured, strict=True):
        guess = predict.latency(space.ops(arch))
        spread = float(np.subtract(*np.quantile(moments, (0.75, 0.25))))
        fact = {"measured_ms": median(moments), "measured_iqr_ms": spread, "moments": len(moments)}
        guesses = {"predicted_ms": guess.ms, "low_ms": guess.low_ms, "high_ms": guess.high_ms}
        rows.append({"arch": str(arch), "operators": len(space.ops(arch)), **fact, **guesses})
    return rows


def _values(rows: list[dict]) -> dict[str, float]:
    columns = ("measured_ms", "predicted_ms", "low_ms", "high_ms", "measured_iqr_ms")
    measured, predicted, low, high, spread = (np.array([row[name] for row in rows]) for name in columns)
    error = np.abs(predicted / measured - 1)
    coverage = np.mean((low <= measured) & (measured <= high))
    values = {
        "within10_ort_1t": np.mean(error <= 0.1),
        "mape_ort_1t": np.mean(error),
        "spearman_ort_1t": spearmanr(predicted, measured)[0],
        "coverage90_ort_1t": coverage,
        "coverage90_low": coverage,  # lowest and highest of all runtimes measured: so far, one
        "coverage90_high": coverage,
        "bias_ort_1t": np.median(predicted / measured) - 1,
        "error_q99_ort_1t": np.quantile(error, 0.99),
        "measured_iqr_ratio_ort_1t": np.median(spread / measured),
    }
    return {name: float(value) for name, value in values.items()}


def _by_size(rows: list[dict]) -> list[dict]:
    """The same errors for each fifth of the networks, from the fastest to the slowest."""
    ranked = sorted(rows, key=lambda row: row["measured_ms"])
    found = []
    for part in np.array_split(np.arange(len(ranked)), min(5, len(ranked))):
        some = [ranked[i] for i in part]
        error = np.array([abs(row["predicted_ms"] / row["measured_ms"] - 1) for row in some])
        span = {"from_ms": some[0]["measured_ms"], "to_ms": some[-1]["measured_ms"], "networks": len(some)}
        found.append({**span, "within10": float(np.mean(error <= 0.1)), "mape": float(np.mean(error))})
    return found


if __name__ == "__main__":
    sys.exit(main())
