"""Latency of a device that was timed 3 to 20 times, from public tables: splits by device, scored on held-out networks.

    python tools/bench/unseen_device.py --data-root ../shared/data --json unseen_device.json

Nothing else of the target device is used: no normalisation by its other timings, nothing dropped from the score.
`random` times networks drawn at random, `active` those that `latency.choose` picks before any timing. Beside them two
ridge regressions of log latency (on the source devices' principal components; on physical sums) and plain FLOPs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import emit, parser
from scipy.stats import kendalltau, spearmanr
from tqdm import tqdm

from edgemeta.latency import basis, choose, fewshot, public, simulate
from edgemeta.latency.parts import Parts, count
from edgemeta.space.presets import PUBLISHED
from edgemeta.types import Arch

FILES = {"fbnet": "help/fbnet_latency.npz", "nb201": "help/nasbench201_latency.npz"}
TIMINGS = (3, 5, 10, 20)
POOL = 300  # networks an active choice is made from
COVERED = 1000  # held-out networks whose intervals are checked
TYPICAL = 600
_SEEDS_OF_POOLS = 900


class Split(NamedTuple):
    """Devices that teach, devices that are predicted, and how many networks of the space may be timed."""

    space: str
    pool: int
    sources: str
    targets: str


_GPUS = "1080ti 2080ti titan_rtx titanx titanxp"
SPLITS: Mapping[str, Split] = {
    "FD": Split(
        "fbnet",
        4000,
        "1080ti_1 1080ti_32 1080ti_64 silver_4114 silver_4210r samsung_a50 pixel3 essential_ph_1 samsung_s7",
        "fpga raspi4 eyeriss",
    ),
    "F1": Split(
        "fbnet",
        800,
        "2080ti_1 essential_ph_1 silver_4114 titan_rtx_1 titan_rtx_32",
        "eyeriss fpga raspi4 samsung_a50 samsung_s7",
    ),
    "F2": Split(
        "fbnet",
        800,
        "essential_ph_1 gold_6226 gold_6240 pixel3 raspi4",
        "1080ti_1 1080ti_32 2080ti_32 titan_rtx_1 titanxp_1",
    ),
    "F3": Split(
        "fbnet",
        800,
        "essential_ph_1 pixel2 pixel3 raspi4 samsung_s7",
        "1080ti_1 1080ti_32 2080ti_1 titan_rtx_1 titan_rtx_32",
    ),
    "F4": Split(
        "fbnet",
        800,
        "1080ti_64 2080ti_1 eyeriss gold_6226 gold_6240 raspi4 samsung_s7 silver_4210r titan_rtx_1 titan_rtx_32",
        "1080ti_1 pixel2 essential_ph_1",
    ),
    "F5": Split(
        "fbnet",
        800,
        " ".join(f"{gpu}_{batch}" for gpu in _GPUS.split() for batch in (1, 32, 64)),
        "gold_6226 essential_ph_1 samsung_s7 pixel2",
    ),
    "ND": Split(
        "nb201",
        900,
        "1080ti_1 1080ti_32 1080ti_256 silver_4114 silver_4210r samsung_a50 pixel3 essential_ph_1 samsung_s7",
        "titan_rtx_256 gold_6226 pixel2 raspi4 eyeriss fpga",
    ),
}


class Table(NamedTuple):
    """A public table: what its networks are made of, and what each device took."""

    typical: Parts
    of: tuple[basis.Basis, np.ndarray]
    features: np.ndarray
    physical: np.ndarray
    flops: np.ndarray
    latency_ms: Mapping[str, np.ndarray]


def main() -> int:
    args = _arguments()
    if not (args.data_root / "help").is_dir():
        sys.exit(f"no tables below {args.data_root}; name the folder that holds help/ with --data-root")
    tables = {name: _table(name, args.data_root) for name in sorted({SPLITS[split].space for split in args.splits})}
    rows: list[dict[str, Any]] = []
    fit_ms: list[float] = []
    bar = tqdm(total=sum(len(SPLITS[name].targets.split()) for name in args.splits), unit="device")
    for name in args.splits:
        rows += _split_rows(name, tables[SPLITS[name].space], args.seeds, fit_ms, bar)
    bar.close()
    shown = _mean_rows(rows)
    facts = {"devices": rows, "seeds": args.seeds, "fit_ms_median": float(np.median(fit_ms)), "pool": POOL}
    return emit("unseen_device", _values(shown, facts), shown, args.json, facts, goals=args.goals, quick=args.quick)


def _arguments() -> argparse.Namespace:
    made = parser(__doc__.split("\n")[0], quick={"splits": ["ND"], "seeds": 2})
    root = Path(__file__).resolve().parents[3] / "shared" / "data"
    made.add_argument("--data-root", type=Path, default=root, metavar="DIR", help="folder with help/*.npz")
    made.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS), help="which splits")
    made.add_argument("--seeds", type=int, default=20, help="supports per device and number of timings")
    return made.parse_args()


def _table(name: str, root: Path) -> Table:
    space, rng = PUBLISHED[name](), np.random.default_rng(0)
    picks, latency_ms = public.table(root / FILES[name], name)
    parts = count([space.ops(Arch(name, row)) for row in picks])
    typical = parts._replace(counts=parts.counts[np.sort(rng.choice(len(picks), TYPICAL, replace=False))])
    of = basis.build(typical, simulate.draw(fewshot.DEVICES, rng=rng))
    macs = parts.counts @ np.array([sum(parts.ops[i].macs for i in part.ops) for part in parts.parts], float)
    return Table(typical, of, of[0](parts), simulate.physical(parts), macs, latency_ms)


def _split_rows(name: str, table: Table, seeds: int, fit_ms: list[float], bar: tqdm) -> Iterator[dict[str, Any]]:
    split = SPLITS[name]
    pool, held = _held_out(split, len(table.features))
    sources = {d: table.latency_ms[d] for d in split.sources.split()}
    real = [fewshot.learn(table.of[0], table.features[pool], ms[pool]) for ms in sources.values()]
    prior = fewshot.prior(table.typical, real, basis_of=table.of)
    supports = {"random": _random(pool, seeds), "active": _active(prior, table.features, pool, seeds)}
    components = _components(np.array([table.features @ weights for weights in real]))
    ridges = {"ridge_sources": components, "ridge_physical": _standard(table.physical)}
    for target in split.targets.split():
        ms = table.latency_ms[target]
        for timings in TIMINGS:
            for design, chosen in supports.items():
                scores = [_ours(prior, table.features, ms, rows[:timings], held, fit_ms) for rows in chosen]
                yield {"split": name, "device": target, "k": timings, "method": design, **_mean(scores)}
            for method, columns in ridges.items():
                scores = [_score(_ridge(columns, ms, rows[:timings], held), ms[held]) for rows in supports["random"]]
                yield {"split": name, "device": target, "k": timings, "method": method, **_mean(scores)}
        scores = [_score(np.log(table.flops[held] + 1), ms[held], ranks_only=True)]
        yield {"split": name, "device": target, "k": 0, "method": "flops", **_mean(scores)}
        bar.update()


def _held_out(split: Split, count: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.arange(count) if split.space == "fbnet" else np.random.default_rng(1).permutation(count)
    return order[: split.pool], order[split.pool :]


def _random(pool: np.ndarray, seeds: int) -> list[np.ndarray]:
    return [np.random.default_rng(seed).choice(pool, max(TIMINGS), replace=False) for seed in range(seeds)]


def _active(prior: fewshot.Prior, features: np.ndarray, pool: np.ndarray, seeds: int) -> list[np.ndarray]:
    found = []
    for seed in range(seeds):
        some = np.random.default_rng(_SEEDS_OF_POOLS + seed).choice(pool, POOL, replace=False)
        found.append(some[choose.design(prior, features[some], max(TIMINGS))])
    return found


def _ours(
    prior: fewshot.Prior, features: np.ndarray, ms: np.ndarray, rows: np.ndarray, held: np.ndarray, fit_ms: list[float]
) -> dict[str, float]:
    begin = time.perf_counter()
    posterior = fewshot.fit(prior, features[rows], ms[rows])
    fit_ms.append(1e3 * (time.perf_counter() - begin))
    some = np.random.default_rng(5).choice(held, COVERED, replace=False)
    low, high = fewshot.interval(posterior, features[some])
    inside = np.mean((low <= np.log(ms[some])) & (np.log(ms[some]) <= high))
    width = np.median(np.exp((high - low) / 2) - 1)
    return {**_score(fewshot.mean(posterior, features[held]), ms[held]), "coverage90": inside, "half_width": width}


def _score(log: np.ndarray, ms: np.ndarray, *, ranks_only: bool = False) -> dict[str, float]:
    ranks = {"spearman": spearmanr(log, ms)[0], "kendall_b": kendalltau(log, ms)[0]}
    if ranks_only:
        return ranks
    error = np.abs(np.exp(log) / ms - 1)
    return {**ranks, "within10": np.mean(error <= 0.1), "median_ape": np.median(error)}


def _standard(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardised columns behind a constant, and the ridge penalty of each."""
    scaled = (columns - columns.mean(0)) / (columns.std(0) + 1e-9)
    return np.hstack([np.ones((len(scaled), 1)), scaled]), np.array([1e-6] + [0.3] * scaled.shape[1])


def _components(sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and principal components of the source devices' denoised log latencies (devices, networks)."""
    scaled = sources / sources.std(1, keepdims=True)
    mean = scaled.mean(0)
    _, sizes, directions = np.linalg.svd(scaled - mean, full_matrices=False)
    kept = min(4, len(sources) - 1)
    components = directions[:kept] * np.sqrt(len(mean)) * np.minimum(1, sizes[:kept] / sizes[0])[:, None]
    return np.vstack([np.ones(len(mean)), mean, components]).T, np.array([1e-6, 1e-2] + [0.5] * kept)


def _ridge(columns: tuple[np.ndarray, np.ndarray], ms: np.ndarray, rows: np.ndarray, held: np.ndarray) -> np.ndarray:
    table, penalty = columns
    some = table[rows]
    return table[held] @ np.linalg.solve(some.T @ some + np.diag(penalty), some.T @ np.log(ms[rows]))


def _mean(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}


def _mean_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each split's mean over its devices."""
    groups: dict[tuple[str, int, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["split"], row["k"], row["method"]), []).append(row)
    return [
        {"split": split, "k": k, "method": method, **_mean([_scores(row) for row in same])}
        for (split, k, method), same in groups.items()
    ]


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if isinstance(value, float)}


def _values(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> dict[str, float]:
    """What is published: the active design, fixed for all splits because it wins on the source devices."""
    ours = {(row["split"], row["k"]): row for row in rows if row["method"] == "active"}
    found = {f"{split.lower()}_k10_spearman": row["spearman"] for (split, k), row in ours.items() if k == 10}
    found["mean_k3_spearman"] = float(np.mean([row["spearman"] for (_, k), row in ours.items() if k == 3]))
    covered = [row["coverage90"] for (_, k), row in ours.items() if k == 10]
    found |= {"coverage90_min": min(covered), "coverage90_max": max(covered), "fit_ms": facts["fit_ms_median"]}
    return found


if __name__ == "__main__":
    sys.exit(main())
