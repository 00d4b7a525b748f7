"""Found networks and well-known ones at equal measured latency, trained alike: a part of `edge_front`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import omniglot
from _common import digest, kept
from _timed import timed

from edgemeta import pipeline
from edgemeta.latency import measure
from edgemeta.learners.memory import keep_freed_memory
from edgemeta.nets.build import build
from edgemeta.space.presets import LANDMARKS, edge
from edgemeta.space.space import Space
from edgemeta.types import Arch, dotted

LANDMARK = "conv4-64"
SHARE = 3  # what a found network may take is this part of its time
TRIALS, RUNGS = 48, (150, 450, 1350, 4050)  # of the search for it: after short training small networks look best
THIRD = f"found, {LANDMARK} / {SHARE}"


def against(front: Mapping[Arch, float], args: argparse.Namespace, executor: Executor) -> list[dict[str, Any]]:
    """Rows of the well-known networks, of those of a front (network -> score) that stand against them, and of one that
    is searched for under a third of Conv4-64's latency."""
    space = edge()
    known = {name: make(space) for name, make in LANDMARKS.items()}
    ms = latencies_ms(space, list(dict.fromkeys([*known.values(), *front])), args)
    limits = {f"found, as {name}": ms[arch] for name, arch in known.items()}
    chosen = known | {name: arch for name, limit in limits.items() if (arch := best_within(front, ms, limit))}
    chosen[THIRD] = found_under(ms[known[LANDMARK]] / SHARE, args)
    pair = latencies_ms(space, [known[LANDMARK], chosen[THIRD]], args)
    ms[chosen[THIRD]] = pair[chosen[THIRD]] / pair[known[LANDMARK]] * ms[known[LANDMARK]]  # at the speed of the others
    archs = list(dict.fromkeys(chosen.values()))
    trained = dict(zip(archs, executor.map(_trained, archs, [args] * len(archs)), strict=True))
    return [
        {"network": name, "latency_ms": ms[arch], **trained[arch], "picks": dotted(arch.picks)}
        for name, arch in chosen.items()
    ]


def found_under(body_ms: float, args: argparse.Namespace) -> Arch:
    """What `edgemeta search` finds on Omniglot's training and validation classes, its body under a latency."""
    asked = {"trials": args.third_trials, "rungs": tuple(args.third_rungs), "eval_episodes": args.episodes}
    run = args.run / f"third-{digest(asked)}"
    asked |= {"device": args.profile} if args.profile else {}
    data = {"data": "omniglot", "root": args.data_root / "omniglot", "cache": args.cache, "learner": args.learner}

    def make() -> list[int]:
        cap = body_ms + measure.head_ms(threads=1)
        pipeline.search(
            run=run, searcher="metapolicy", latency_ms=cap, workers=args.jobs, progress=False, **data, **asked
        )
        return json.loads((run / "search.json").read_text(encoding="utf-8"))["winner"]["picks"]

    return Arch(edge().name, tuple(kept(args.run / f"third-{digest(asked, args.learner, body_ms)}.json", make)))


def latencies_ms(space: Space, archs: Sequence[Arch], args: argparse.Namespace) -> dict[Arch, float]:
    """Measured latencies of bodies, in turns."""

    def make() -> list[float]:
        ms = timed(space, archs, seed=0).ms
        return [ms[arch] for arch in archs]

    path = args.run / f"latencies-{digest(space.name, archs)}.json"
    return dict(zip(archs, kept(path, make), strict=True))


def best_within(scores: Mapping[Arch, float], ms: Mapping[Arch, float], limit_ms: float) -> Arch | None:
    """The network of the highest score that takes no longer."""
    return max((arch for arch in scores if ms.get(arch, math.inf) <= limit_ms), key=scores.__getitem__, default=None)


def _trained(arch: Arch, args: argparse.Namespace) -> dict[str, Any]:
    """Test accuracies of a network after training from scratch (`omniglot.measured`)."""
    space = edge()
    ops = space.ops(arch)
    same = {"hours": 0.0, "split": "test", "also_val": False, "keep": None, "seed": 0}
    given = argparse.Namespace(**vars(args) | same)

    def make() -> dict[str, Any]:
        keep_freed_memory()
        row = omniglot.measured(args.learner, omniglot.own_recipe(args.learner), build(ops), given)
        told = {name: value for name, value in row.items() if not name.endswith(("_published", "source"))}
        return {"mmacs": sum(op.macs for op in ops) / 1e6, **told}

    return kept(args.run / "nets" / f"{digest(arch, args.learner, args.minutes, args.episodes)}.json", make)


def margins(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Points that found networks are above those that take as long, and above one that takes three times as long."""
    by_name = {row["network"]: row for row in rows}
    made = {
        f"gain_at_{name.replace('-', '_')}": by_name[f"found, as {name}"]["5w1s"] - by_name[name]["5w1s"]
        for name in LANDMARKS
        if f"found, as {name}" in by_name
    }
    made["found_vs_conv4_accuracy"] = by_name[THIRD]["5w1s"] - by_name[LANDMARK]["5w1s"]
    made["found_vs_conv4_latency_ratio"] = by_name[THIRD]["latency_ms"] / by_name[LANDMARK]["latency_ms"]
    return made
