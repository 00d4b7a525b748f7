"""Few-shot accuracy on Omniglot's test classes after minutes of meta-training on one core.

    python tools/bench/found_net.py --learner protonet --arch found tapered conv4-64 --minutes 5 --json out.json

Vinyals split, rotations as classes, trained on `train`, searched on `val`, reported on `test`; never transductive.
`found` is searched under Conv4-64's own latency on this machine, measured, divided by three (of the networks; the
classification after them is the same for both). Settings were chosen on `val`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import omniglot
import torch
from _common import emit, parser, require_folder

from edgemeta import pipeline
from edgemeta.latency.measure import head_ms, time_model
from edgemeta.latency.onnx_net import to_onnx
from edgemeta.learners import LEARNERS
from edgemeta.nets.build import build
from edgemeta.space.presets import LANDMARKS, edge
from edgemeta.types import Arch

SHARE = 3  # the found net must take at most this part of Conv4-64's time
RUNGS = (150, 450, 1350, 4050)  # the last is a third of what the final training has: short training favours small nets
FOUND = "found"


def main() -> int:
    options = parser(__doc__.split("\n")[0])
    options.add_argument("--learner", default="protonet", choices=LEARNERS)
    options.add_argument("--arch", nargs="+", default=[FOUND, "tapered", "conv4-64"], choices=[FOUND, *LANDMARKS])
    options.add_argument("--minutes", type=float, default=5.0, help="meta-training time per network, on one core")
    options.add_argument("--episodes", type=int, default=1000, help="test episodes per figure")
    options.add_argument("--trials", type=int, default=48, help="networks the search trains")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--data-root", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    options.add_argument("--run", type=Path, default=Path("runs/omniglot"), help="run folder of the search")
    args = options.parse_args()
    args.hours, args.split, args.keep = 0.0, "test", None
    require_folder(args.data_root, "omniglot")
    torch.set_num_threads(1)
    rows = [measured(name, args) for name in args.arch]
    values = {f"{args.learner}_{way}w{shot}s": rows[0][f"{way}w{shot}s"] for way, shot in omniglot.TASKS}
    by_name = {row["arch"]: row for row in rows}
    if FOUND in by_name and "conv4-64" in by_name:
        found, base = by_name[FOUND], by_name["conv4-64"]
        values["found_vs_conv4_accuracy"] = found["5w1s"] - base["5w1s"]
        values["found_vs_conv4_latency_ratio"] = found["latency_ms"] / base["latency_ms"]
    settings = {name: str(value) for name, value in vars(args).items()}
    return emit("found_net", values, rows, args.json, settings, goals=args.goals)


def measured(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One network: its latency here, and its test accuracy after training."""
    space = edge()
    arch = found(args) if name == FOUND else LANDMARKS[name](space)
    ops = space.ops(arch)
    row = {"arch": name, "picks": ".".join(map(str, arch.picks)), "latency_ms": body_ms(arch)}
    row |= {"params_k": sum(op.weight_bytes for op in ops) / 4e3, "mmacs": sum(op.macs for op in ops) / 1e6}
    row |= omniglot.measured(args.learner, omniglot.own_recipe(args.learner), build(ops), args)
    print(row, flush=True)
    return row


def found(args: argparse.Namespace) -> Arch:
    """The winner of a search under a third of Conv4-64's time, on training and validation classes."""
    space = edge()
    cap = body_ms(LANDMARKS["conv4-64"](space)) / SHARE + head_ms(threads=1)
    pipeline.search(
        run=args.run,
        seed=args.seed,
        data="omniglot",
        root=args.data_root / "omniglot",
        cache=args.run / "cache",
        learner=args.learner,
        latency_ms=cap,
        trials=args.trials,
        rungs=RUNGS,
        eval_episodes=1000,
    )
    note = json.loads((args.run / "search.json").read_text())
    return Arch(space.name, tuple(note["winner"]["picks"]))


def body_ms(arch: Arch, repeats: int = 5) -> float:
    """Median over a few sessions of one inference of the body, batch 1, one thread."""
    space = edge()
    model = to_onnx(space.ops(arch), batch=1).SerializeToString()
    x = np.random.default_rng(0).random((1, *space.in_shape), dtype=np.float32)
    return float(np.median([time_model(model, {"x": x}).median_ms for _ in range(repeats)]))


if __name__ == "__main__":
    sys.exit(main())
