"""What each learner costs to adapt: time on one thread, and the size of what it changes.

    python tools/bench/learner_cost.py --json learner_cost.json

The tapered four-conv net at 28x28, warmed up but not trained: time does not depend on the weights. 5 classes of 5
shots, all steps of the learner. Learners that leave the body alone are given features, whose own cost is
`features_us`; the others are given images. `torch_us`: `train.adapt`. `onnx_us`: the adapt graph in ONNX Runtime, of
learners that are lowered. `fast_kib`: what is kept of the task. `body`: how much of the body's numbers is adapted.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np
import torch
from _common import emit, parser
from device_runtime import SHOT, WAY, spread, timed

from edgemeta.contracts import Fast, Learner, Net, Params, Support
from edgemeta.latency.measure import time_model
from edgemeta.learners import LEARNERS
from edgemeta.learners.outer import steps_of, trained
from edgemeta.learners.train import adapt
from edgemeta.lowering import to_onnx
from edgemeta.lowering.trace import reads, trace
from edgemeta.nets.build import build
from edgemeta.space.presets import edge, tapered
from edgemeta.types import KIB


def main() -> int:
    args = parser(__doc__.split("\n")[0], quick={"learners": ["protonet", "anil", "maml-last"], "repeats": 3})
    args.add_argument("--learners", nargs="+", default=list(LEARNERS), choices=LEARNERS)
    args.add_argument("--repeats", type=int, default=50, help="adaptations of each")
    given = args.parse_args()
    torch.set_num_threads(1)
    space = edge()
    net = build(space.ops(tapered(space)))
    rows = [bench(LEARNERS[name](net), given.repeats) for name in given.learners]
    values = {
        f"{row['learner']}_{cost}": row[cost]
        for row in rows
        for cost in ("torch_us", "onnx_us", "fast_kib")
        if row[cost] is not None
    }
    values["features_us"] = features_us(net, given.repeats)
    extra = {"repeats": given.repeats}
    return emit("learner_cost", values, rows, given.json, extra, goals=given.goals, quick=given.quick)


@torch.no_grad()
def bench(learner: Learner, repeats: int) -> dict[str, Any]:
    """One row."""
    slow = warmed_up(learner)
    images = support_images(learner.net)
    x = learner.net.body(slow, images) if learner.on_features else images
    support = Support(x, torch.eye(WAY).repeat_interleave(SHOT, 0))
    torch_us = [1e3 * ms for ms in timed(lambda: adapt(learner, slow, support), repeats)]
    fast = adapt(learner, slow, support)
    return {
        "learner": learner.name,
        "body": changed(learner, slow, fast),
        "torch_us": median(torch_us),
        "torch_iqr_us": spread(torch_us),
        **onnx(learner, slow, support),
        "fast_kib": sum(value.numel() * value.element_size() for value in fast.values()) / KIB,
    }


def warmed_up(learner: Learner) -> Params:
    """Weights whose running statistics have seen some images."""
    rng = torch.Generator().manual_seed(0)
    slow = learner.init(rng=rng)
    for _ in range(3):
        learner.net.body(slow, torch.rand(16, *learner.net.in_shape, generator=rng), train=True)
    return slow


def support_images(net: Net) -> torch.Tensor:
    return torch.rand(WAY * SHOT, *net.in_shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def features_us(net: Net, repeats: int) -> float:
    """The support's images through the body in torch, which learners on features need beside adapting."""
    slow, images = net.init(rng=torch.Generator().manual_seed(0)), support_images(net)
    return 1e3 * median(timed(lambda: net.body(slow, images), repeats))


def onnx(learner: Learner, slow: Params, support: Support) -> dict[str, float]:
    """Microseconds of the adapt graph."""
    model, steps = to_onnx.adapt(trace(learner, slow), slow), steps_of(learner, len(support.x))
    feeds = {reads(learner)[0]: support.x.numpy(), "onehot": support.onehot.numpy(), "steps": np.array(steps)}
    timing = time_model(model.SerializeToString(), feeds)
    return {"onnx_us": 1e3 * timing.median_ms, "onnx_iqr_us": 1e3 * timing.iqr_ms}


def changed(learner: Learner, slow: Mapping[str, torch.Tensor], fast: Fast) -> str:
    """How much of the body's trained numbers the task adapts."""
    body = trained(learner.net.init(rng=torch.Generator()))
    adapted = sum(fast[name].numel() for name in body if name in fast)
    share = adapted / sum(value.numel() for value in body.values())
    if adapted:
        return "everything" if share == 1 else f"{100 * share:.1f} %"
    return "nothing" if learner.on_features else f"nothing; {fast['context'].numel()} numbers steer it"


if __name__ == "__main__":
    sys.exit(main())
