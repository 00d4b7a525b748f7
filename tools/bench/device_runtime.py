"""How long a device takes to learn and to answer, and how far it is from torch.

    python tools/bench/device_runtime.py --json device_runtime.json

Bundles of the tapered four-conv net at 28x28, warmed up but not trained: time does not depend on the weights. One
thread, the device runtime alone, from uint8 arrays to names, preprocessing included. `enroll_ms`: 5 classes of 5 shots
from nothing. `predict_ms`: one image. `head_adapt_ms`: ANIL's five steps from features. `max_diff_float`: the largest
difference from torch in features, fast tensors and logits, as a share of the larger of 1 and the largest value.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from _common import emit, parser

from edgemeta import files
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle
from edgemeta.nets.build import build
from edgemeta.space.presets import edge, tapered

sys.path.insert(0, str(files.resource("export") / "python"))
import edgemeta_device

WAY, SHOT = 5, 5
LOWERED = ("protonet", "anil")


def main() -> int:
    args = parser(__doc__.split("\n")[0])
    args.add_argument("--repeats", type=int, default=100, help="runs of each")
    given = args.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [bench(name, Path(folder) / name, given.repeats) for name in LOWERED]
    values = {
        "enroll_ms": max(row["enroll_ms"] for row in rows),
        "predict_ms": max(row["predict_ms"] for row in rows),
        "head_adapt_ms": next(row["adapt_ms"] for row in rows if row["learner"] == "anil"),
        "max_diff_float": max(row["max_diff"] for row in rows),
        "lower_s": max(row["lower_s"] for row in rows),
    }
    return emit("device_runtime", values, rows, given.json, {"repeats": given.repeats}, goals=given.goals)


def bench(name: str, folder: Path, repeats: int) -> dict[str, Any]:
    """One row: a learner's bundle written, loaded and timed."""
    lower_s = write(name, folder)
    began = time.perf_counter()
    device = edgemeta_device.Device(folder)
    load_ms = (time.perf_counter() - began) * 1e3
    rng = np.random.default_rng(0)
    shots = {f"class {i}": list(rng.integers(0, 256, (SHOT, 28, 28), dtype=np.uint8)) for i in range(WAY)}

    def forget() -> None:
        for known in device.names:
            device.forget(known)

    enroll_ms = timed(lambda: device.enroll(shots), repeats, before=forget)
    predict_ms = timed(lambda: device.predict(shots["class 0"][:1]), repeats)
    found, measured = bundle.read(folder), bundle.measure(folder)
    return {
        "learner": name,
        "enroll_ms": median(enroll_ms),
        "enroll_iqr_ms": spread(enroll_ms),
        "predict_ms": median(predict_ms),
        "predict_iqr_ms": spread(predict_ms),
        **{graph: measured[graph]["median_ms"] for graph in ("body_ms", "adapt_ms", "classify_ms")},
        "load_ms": load_ms,
        "lower_s": lower_s,
        "max_diff": max(found.checked.body, found.checked.adapt, found.checked.classify),
        "graph_kib": found.costs.graph_kib,
    }


def write(name: str, folder: Path) -> float:
    """Seconds to lower, check and write a bundle of a learner whose network has seen some images."""
    space, rng = edge(), torch.Generator().manual_seed(0)
    net = build(space.ops(tapered(space)))
    learner = LEARNERS[name](net)
    slow = learner.init(rng=rng)
    for _ in range(3):
        net.body(slow, torch.rand(16, *net.in_shape, generator=rng), train=True)
    facts: Mapping[str, str] = {"trained": "no: statistics only"}
    began = time.perf_counter()
    bundle.write(folder, slow=slow, learner=learner, facts=facts, polarity="ink-high")
    return time.perf_counter() - began


def timed(call: Callable[[], object], repeats: int, before: Callable[[], object] = lambda: None) -> list[float]:
    """Milliseconds of each call, after some that do not count; what happens `before` each does not count either."""
    spent = []
    for i in range(repeats + 5):
        before()
        began = time.perf_counter()
        call()
        if i >= 5:
            spent.append((time.perf_counter() - began) * 1e3)
    return spent


def spread(values: list[float]) -> float:
    low, _, high = quantiles(values, n=4)
    return high - low


if __name__ == "__main__":
    sys.exit(main())
