"""Predicted against measured latency of random whole networks, on the four devices that one machine is.

    python tools/bench/host_latency.py --json host_latency.json

ONNX Runtime with one thread, with two, with int8 graphs, and onnxruntime-web's wasm under Node: each is profiled, then
fresh random architectures are timed, none of which was timed for the profile. Each is timed at several moments in
random order, every time in a new session, in turns with a reference network, and the median of these is taken as
measured. A rented machine may be a fifth slower for minutes, whatever runs on it: timings are scaled by the reference
to the speed the machine had while it was profiled, as within the profile. `raw_*` are the same values with no
correction of any kind, and `speed` is how much slower the networks were than during the profile. The interval is held
against timings as the profile takes them, at three moments; against the medians of all moments, which are less noisy,
stands beside it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import numpy as np
from _common import emit, parser
from _common import table as table_of
from scipy.stats import spearmanr

from edgemeta.latency import kit as kits
from edgemeta.latency import measure, profile, runners, table, visits
from edgemeta.latency.kit import SECONDS
from edgemeta.space.presets import SPACES
from edgemeta.space.space import Space
from edgemeta.types import Arch, Profile

DEVICES: Mapping[str, Mapping[str, Any]] = {
    "ort_1t": {},
    "ort_2t": {"threads": 2},
    "ort_int8": {"precision": "int8"},
    "node_wasm": {"runtime": "onnxruntime-web"},
}
MOST_S = 120.0  # of timing the test networks
QUICK = {"space": "tiny", "nets": 10, "profile_nets": 20, "seconds": 8.0, "test_seconds": 8.0}
_TEST_SEED = 1_000_003  # added to --seed, so that the test draws are not the profile's


def main() -> int:
    args = _arguments()
    space = SPACES[args.space]()
    values: dict[str, float] = {}
    rows, facts = [], {"space": space.name, "seed": args.seed}
    for name in args.devices:
        begin = time.perf_counter()
        how: dict[str, Any] = {"seed": args.seed, "nets": args.profile_nets, "seconds": args.seconds}
        known = measure.measure_host(space, **how, **DEVICES[name])
        taken = time.perf_counter() - begin
        if args.keep:
            _keep(known, name, args.keep)
        timed = _timed(space, known, _unseen(space, known, args.nets, seed=args.seed), name, args)
        found = _values(timed)
        values |= {f"{value}_{name}": number for value, number in found.items()}
        rows.append({"device": name, **found, "profile_s": taken})
        facts[name] = {"profile": _circumstances(known), "by_size": _by_size(timed), "nets": timed}
        print(table_of(facts[name]["by_size"]), end="\n\n", flush=True)
    coverage = [row["coverage90"] for row in rows]
    values |= {"coverage90_low": min(coverage), "coverage90_high": max(coverage)}
    return emit("host_latency", values, rows, args.json, facts, goals=args.goals, quick=args.quick)


def _arguments() -> argparse.Namespace:
    made = parser("Predicted against measured latency of random whole networks on this machine's devices.", quick=QUICK)
    made.add_argument("--space", choices=SPACES, default="edge", help="search space")
    made.add_argument("--devices", nargs="+", choices=DEVICES, default=list(DEVICES), help="which of this machine's")
    made.add_argument("--nets", type=int, default=300, help="test networks")
    made.add_argument("--profile-nets", type=int, default=600, help="random networks of a profile")
    made.add_argument("--seconds", type=float, default=SECONDS, help="of a profile")
    made.add_argument("--test-seconds", type=float, default=MOST_S, help="at most, of timing the test networks")
    made.add_argument("--seed", type=int, default=0, help="of the profile and of the test networks")
    made.add_argument("--keep", type=Path, metavar="DIR", help="keep the profiles here, as they ship in profiles/")
    return made.parse_args()


def _keep(known: Profile, name: str, folder: Path) -> None:
    device = f"{known.device.removeprefix('host-').split('-processor')[0]}-{name.replace('_', '-')}"
    source = "measured by tools/bench/host_latency.py on a virtual machine with two cores"
    profile.save(replace(known, device=device, source=source), folder / f"{device}.json")


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


def _timed(
    space: Space, known: Profile, archs: Sequence[Arch], name: str, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Every architecture with its prediction and the median of its moments; all of them once, then all again."""
    predict = table.predictor(known)
    settings = DEVICES[name]
    with tempfile.TemporaryDirectory() as folder:
        made = kits.write(
            folder,
            space,
            archs,
            seed=args.seed + _TEST_SEED,
            precision=settings.get("precision", "fp32"),
            threads=settings.get("threads", 1),
            seconds=args.test_seconds,
        )
        run = runners.RUNTIMES[settings.get("runtime", measure.RUNTIME)]
        timings = visits.read(run(made, Path(folder) / "timings.json"), made)
    speed = median(ms for _, ms in known.drift)
    rows = []
    for net, moments in visits.by_net(timings.visits).items():
        guess, raw = predict.latency(space.ops(archs[net])), median(visit.median for visit in moments)
        scaled = median(visit.median * speed / visit.reference for visit in moments)
        alike = median(visit.median * speed / visit.reference for visit in moments[: kits.PASSES])
        fact = {"measured_ms": scaled, "alike_ms": alike, "raw_ms": raw, "moments": len(moments)}
        guesses = {"predicted_ms": guess.ms, "low_ms": guess.low_ms, "high_ms": guess.high_ms}
        rows.append({"arch": str(archs[net]), **fact, **guesses})
    return rows


def _values(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    columns = ("measured_ms", "alike_ms", "raw_ms", "predicted_ms", "low_ms", "high_ms")
    measured, alike, raw, predicted, low, high = (np.array([row[name] for row in rows]) for name in columns)
    error, raw_error = np.abs(predicted / measured - 1), np.abs(predicted / raw - 1)
    values = {
        "within10": np.mean(error <= 0.1),
        "mape": np.mean(error),
        "spearman": spearmanr(predicted, measured)[0],
        "coverage90": np.mean((low <= alike) & (alike <= high)),
        "coverage_of_medians": np.mean((low <= measured) & (measured <= high)),
        "bias": np.median(predicted / measured) - 1,
        "error_q99": np.quantile(error, 0.99),
        "median_ms": np.median(measured),
        "raw_within10": np.mean(raw_error <= 0.1),
        "raw_mape": np.mean(raw_error),
        "raw_coverage90": np.mean((low <= raw) & (raw <= high)),
        "speed": np.median(raw / measured),
    }
    return {name: float(value) for name, value in values.items()}


def _circumstances(known: Profile) -> dict[str, Any]:
    facts = {name: getattr(known, name) for name in ("device", "governor", "measured_on", "doubts", "affinity")}
    return {**facts, "versions": dict(known.versions), "overhead": dict(known.overhead), "nets": len(known.nets)}


def _by_size(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
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
