"""What a device spends on answering and learning, in every runtime there is, and how far the answers are from torch's.

    python tools/bench/device_runtime.py --json device_runtime.json

Three networks that a search found and trained (of the zoo that ships, of its fastest, middle and slowest third the most
accurate), at 28x28 and at 84x84, on glyphs that no training saw. Everything is held to one core, for ExecuTorch's
Python runtime always has a thread for each; runtimes of one process take turns, and a ratio is the median over turns.
5 classes of 5 examples at 28x28, of 2 at 84x84.

`infer`: one image to features. `head, LEARNER`: the whole adaptation from features, all steps. `norm`, `last`, `full`:
one step that changes the norms, the last convolution, every weight of the network, on all the images. ExecuTorch
(XNNPACK) and C infer; C adapts heads. `enroll_ms`, `predict_ms`: the Python runtime from uint8 images to names.

`max_diff_float`: features (as a share of their largest) and logits (of the larger of 1 and the largest), in any
runtime, against torch. `max_diff_int8`: class probabilities of int8 bodies, against the same arithmetic in torch;
`int8_to_float_probability`: against the float body. Ratios are the worst over networks and sizes.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean, median, quantiles
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from _common import emit, parser
from _runtimes import Answer, Forward, chromium, executorch, in_browser, node, plain_c

from edgemeta import files
from edgemeta.config import default_cache
from edgemeta.contracts import Learner, Params, Support
from edgemeta.latency.measure import session
from edgemeta.learners import LEARNERS
from edgemeta.learners.train import adapt
from edgemeta.lowering import bundle, int8
from edgemeta.nets.build import build
from edgemeta.search import zoo as zoos
from edgemeta.search.jobs import DataSpec, data_pool
from edgemeta.space.presets import edge
from edgemeta.types import Arch, Op

sys.path.insert(0, str(files.resource("export") / "python"))
import edgemeta_device

WAY, SHOT = 5, 5
SIZES = {28: SHOT, 84: 2}  # pixels -> shots
HEADS = ("anil", "protonet", "ridge")  # the first in every runtime
STEPS = {"norm": "maml-norm", "last": "maml-last", "full": "maml"}
TURNS, BLOCK_S = 15, 0.02
RUNTIMES = ("onnxruntime", "torch", "executorch", "node", "wasm", "c")
Calls = Mapping[str, Callable[[], object]]


class Net(NamedTuple):
    """A network at a resolution, and what it is shown."""

    name: str
    pixels: int
    ops: tuple[Op, ...]
    body: Params
    images: np.ndarray  # float32 (n, 1, pixels, pixels), class after class
    queries: np.ndarray
    labels: np.ndarray


def main() -> int:
    args = parser(__doc__.split("\n")[0], quick={"turns": 3, "pixels": [28], "networks": 1})
    args.add_argument("--turns", type=int, default=TURNS, help="in which runtimes of one process are timed")
    args.add_argument("--pixels", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    args.add_argument("--networks", type=int, choices=(1, 2, 3), default=3, help="of each size, from the fastest on")
    given = args.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    globals().update(TURNS=given.turns)
    rows: list[dict[str, Any]] = []
    with chromium() as browser, tempfile.TemporaryDirectory() as place:
        for net in nets(given.pixels, given.networks):
            rows += of_net(net, Path(place) / f"{net.name}-{net.pixels}", browser)
            print(f"{net.name}, {net.pixels} pixels", flush=True)
    values = summary(rows) | whole(nets([28], 1)[0])
    return emit("device_runtime", values, rows, given.json, {"turns": TURNS}, goals=given.goals, quick=given.quick)


def nets(sizes: Sequence[int], most: int) -> list[Net]:
    """Of each third of the zoo, in the order of multiply-accumulates, the most accurate, at each resolution."""
    zoo = zoos.read(zoos.SHIPPED)
    ranked = sorted(zoo.members, key=lambda member: sum(op.macs for op in zoo.space.ops(member.arch)))
    third = len(ranked) // 3
    parts = {"fast": ranked[:third], "middle": ranked[third:-third], "slow": ranked[-third:]}
    spec = DataSpec("glyphs", None, str(default_cache()), (1, 28, 28), 0, "as-is")
    held, rng = data_pool(spec, "test"), np.random.default_rng(0)
    classes = rng.choice(len(held.by_class), WAY, replace=False)
    found = []
    for pixels, shots in ((size, SIZES[size]) for size in sizes):
        chosen = np.concatenate([rng.permutation(held.by_class[i])[: shots + 1].reshape(1, -1) for i in classes])
        x = np.kron(held.images(chosen.ravel()).numpy(), np.ones((pixels // 28, pixels // 28), np.float32))
        x = x.reshape(WAY, shots + 1, 1, pixels, pixels)
        labels = np.repeat(np.arange(WAY), shots)
        for name, part in list(parts.items())[:most]:
            best = max(part, key=lambda member: member.accuracy("val", SHOT))
            ops = edge((1, pixels, pixels)).ops(Arch(f"edge-1x{pixels}x{pixels}", best.arch.picks))
            images = x[:, :shots].reshape(-1, 1, pixels, pixels)
            found.append(Net(name, pixels, ops, zoo.weights(best), images, x[:, shots], labels))
    return found


def of_net(net: Net, place: Path, browser: Any) -> list[dict[str, Any]]:
    anil, slow = learner_of("anil", net)
    folder = bundle.write(place / "anil", slow=slow, learner=anil, facts={}, scale=1.0)
    told = bundle.read(folder)
    support = Support(*features(anil, slow, net))
    onehot = support.onehot.numpy()
    feeds = {
        "body": {"x": net.queries[:1]},
        "adapt": {"features": support.x.numpy(), "onehot": onehot, "steps": np.array(anil.steps)},
        "classify": {"features": anil.net.body(slow, torch.from_numpy(net.queries[:1])).detach().numpy()},
    }
    with torch.no_grad():
        z = anil.net.body(slow, torch.from_numpy(net.queries[:1])).numpy()
        wanted = {"z": z, "logits": anil.predict(slow, adapt(anil, slow, support), torch.from_numpy(z)).numpy()}
    others = {"node": node(folder, feeds), "wasm": in_browser(browser, folder, feeds) if browser else None}
    compiled = plain_c(anil, slow, folder, np.concatenate([net.images, net.queries[:1]]), net.labels, WAY)
    rows = [infer(net, anil, slow, folder, others, compiled, wanted, told.checked.body or 0.0)]
    for name in HEADS:
        rows.append(head(net, name, place, others if name == "anil" else {}, compiled if name == "anil" else None))
    for what, name in STEPS.items():
        rows.append(step(net, what, name, place, browser))
    rows[0] |= {"graph_kib": told.costs.graph_kib} | (
        {"c_arena_kib": compiled[1].arena / 1024, "c_flash_kib": compiled[2]} if compiled else {}
    )
    return [*rows, quantised(net, anil, slow, place)]


def learner_of(name: str, net: Net) -> tuple[Learner, Params]:
    """A learner on the network's trained weights."""
    learner = LEARNERS[name](build(net.ops))
    slow = learner.init(rng=torch.Generator().manual_seed(0))
    return learner, slow | {key: value for key, value in net.body.items() if key in slow}


@torch.no_grad()
def features(learner: Learner, slow: Params, net: Net) -> tuple[torch.Tensor, torch.Tensor]:
    return learner.net.body(slow, torch.from_numpy(net.images)), torch.eye(WAY)[torch.from_numpy(net.labels)]


def infer(
    net: Net,
    learner: Learner,
    slow: Params,
    folder: Path,
    others: Mapping[str, Mapping[str, Answer] | None],
    compiled: Any,
    wanted: Mapping[str, np.ndarray],
    checked: float,
) -> dict[str, Any]:
    x = torch.from_numpy(net.queries[:1])
    runtime, forward = session((folder / "body.onnx").read_bytes()), Forward(net.ops, slow)
    calls: dict[str, Callable[[], object]] = {
        "onnxruntime": lambda: runtime.run(None, {"x": net.queries[:1]}),
        "torch": torch.no_grad()(lambda: forward(x)),
    }
    size = None
    if peer := executorch(forward, x):
        calls["executorch"], size = peer
    spent = in_turns(calls)
    outputs = [{"z": np.asarray(spent_output(calls[name]))} for name in calls]
    for answers in [*others.values(), compiled and compiled[0]]:
        outputs += [answers["body"].outputs, answers["classify"].outputs] if answers else []
    row = base(net, "infer", spent) | times("body", others, compiled)
    return row | {"executorch_kib": size, "max_diff": max(checked, *(apart(own, wanted) for own in outputs))}


def spent_output(call: Callable[[], Any]) -> Any:
    made = call()
    return made[0] if isinstance(made, list) else made.detach().numpy()


def head(net: Net, name: str, place: Path, others: Mapping[str, Any], compiled: Any) -> dict[str, Any]:
    learner, slow = learner_of(name, net)
    folder = bundle.write(place / name, slow=slow, learner=learner, facts={}, scale=1.0)
    support = Support(*features(learner, slow, net))
    runtime = session((folder / "adapt.onnx").read_bytes())
    feeds = {"features": support.x.numpy(), "onehot": support.onehot.numpy(), "steps": np.array(learner.steps)}
    calls = {
        "onnxruntime": lambda: runtime.run(None, feeds),
        "torch": torch.no_grad()(lambda: adapt(learner, slow, support)),
    }
    checked = bundle.read(folder).checked
    row = base(net, f"head, {name}", in_turns(calls)) | times("adapt", others, compiled)
    return row | {"max_diff": max(checked.adapt, checked.classify)}


def step(net: Net, what: str, name: str, place: Path, browser: Any) -> dict[str, Any]:
    """One step on all images: what six steps take more than one, by five, for the first is more than a step."""
    learner, slow = learner_of(name, net)
    folder = bundle.write(place / name, slow=slow, learner=learner, facts={}, scale=1.0)
    onehot = np.eye(WAY, dtype=np.float32)[net.labels]
    support = Support(torch.from_numpy(net.images), torch.from_numpy(onehot))
    runtime, feeds = session((folder / "adapt.onnx").read_bytes()), {"x": net.images, "onehot": onehot}
    fast = learner.start(slow, support)
    calls = {
        "one": lambda: runtime.run(None, feeds | {"steps": np.array(1)}),
        "six": lambda: runtime.run(None, feeds | {"steps": np.array(6)}),
        "torch": torch.no_grad()(lambda: learner.step(slow, fast, support)),
        "forward": torch.no_grad()(lambda: learner.net.body(slow, support.x)),
    }
    spent = in_turns(calls)
    own = [max(1e-6, six - one) / 5 for one, six in zip(spent["one"], spent["six"], strict=True)]
    asked = {"adapt": {**feeds, "steps": np.array(1)}, "classify": {"x": net.queries[:1]}}
    others = {"node": node(folder, asked), "wasm": in_browser(browser, folder, asked) if browser else None}
    with torch.no_grad():
        after = learner.step(slow, fast, support)
        wanted = {"logits": learner.predict(slow, after, torch.from_numpy(net.queries[:1])).numpy()}
    gaps = [apart(answers["classify"].outputs, wanted) for answers in others.values() if answers]
    found = bundle.read(folder)
    row = base(net, what, {"onnxruntime": own, "torch": spent["torch"]}) | times("adapt", others, None)
    row["torch_forward_ms"] = median(spent["forward"])
    row["adapt_ram_kib"] = found.costs.adapt_ram_kib
    return row | {"max_diff": max(found.checked.adapt, found.checked.classify, *gaps)}


def quantised(net: Net, learner: Learner, slow: Params, place: Path) -> dict[str, Any]:
    body = int8.quantise(learner.net, slow, np.concatenate([net.images, net.queries]))
    folder = bundle.write(place / "int8", slow=slow, learner=learner, facts={}, scale=1.0, body=body)
    runtime = session((folder / "body.onnx").read_bytes())
    floats = session((place / "anil" / "body.onnx").read_bytes())
    one = {"x": net.queries[:1]}
    spent = in_turns({"onnxruntime": lambda: runtime.run(None, one), "float": lambda: floats.run(None, one)})
    both = np.concatenate([net.images, net.queries])
    with torch.no_grad():
        wanted = int8.simulated(net.ops, body, torch.from_numpy(both))
        floating = learner.net.body(slow, torch.from_numpy(both))
    got = torch.from_numpy(runtime.run(None, {"x": both})[0])
    prototypical, weights = learner_of("protonet", net)
    own, same, plain = (probabilities(prototypical, weights, z, net.labels) for z in (got, wanted, floating))
    row = base(net, "infer, int8", {"onnxruntime": spent["onnxruntime"]})
    row["float_ratio"] = median(a / b for a, b in zip(spent["onnxruntime"], spent["float"], strict=True))
    row["graph_kib"] = bundle.read(folder).costs.graph_kib
    return row | {"max_diff": float((own - same).abs().max()), "from_float": float((own - plain).abs().max())}


@torch.no_grad()
def probabilities(learner: Learner, slow: Params, z: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    n = len(labels)
    fast = adapt(learner, slow, Support(z[:n], torch.eye(WAY)[torch.from_numpy(labels)]))
    return learner.predict(slow, fast, z[n:]).softmax(1)


def in_turns(calls: Calls) -> dict[str, list[float]]:
    """Milliseconds of each call, in blocks that take turns."""
    repeats = {}
    for name, call in calls.items():
        call()
        began = time.perf_counter()
        call()
        repeats[name] = max(1, math.ceil(BLOCK_S / max(time.perf_counter() - began, 1e-6)))
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(TURNS):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            spent[name].append((time.perf_counter() - began) / repeats[name] * 1e3)
    return spent


def base(net: Net, what: str, spent: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"net": net.name, "pixels": net.pixels, "what": what}
    row |= {f"{name}_ms": None for name in RUNTIMES} | {f"{name}_ms": median(each) for name, each in spent.items()}
    for name in ("torch", "executorch"):
        if name in spent:
            row[f"ratio_{name}"] = median(a / b for a, b in zip(spent["onnxruntime"], spent[name], strict=True))
    return row


def times(graph: str, others: Mapping[str, Mapping[str, Answer] | None], compiled: Any) -> dict[str, float]:
    found = {f"{name}_ms": answers[graph].ms for name, answers in others.items() if answers}
    return found | ({"c_ms": compiled[0][graph].ms} if compiled else {})


def apart(outputs: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> float:
    """The largest difference: of features as a share of the largest, of logits of 1 where that is larger."""
    gaps = [0.0]
    for name, got in outputs.items():
        if name in wanted:
            largest = max(np.abs(wanted[name]).max(), 1.0 if name == "logits" else 0.0)
            gaps.append(float(np.abs(np.ravel(got) - wanted[name].ravel()).max() / largest))
    return max(gaps)


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    by: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by.setdefault(row["what"], []).append(row)
    peers = [row["ratio_executorch"] for row in by["infer"] if "ratio_executorch" in row]
    floats = [row for row in rows if row["what"] != "infer, int8"]
    return {
        **({"infer_ratio_vs_executorch": max(peers), "infer_ratio_mean": geometric_mean(peers)} if peers else {}),
        **{f"{what}_step_ratio_vs_torch": max(row["ratio_torch"] for row in by[what]) for what in STEPS},
        **{f"{what}_step_ratio_mean": geometric_mean([row["ratio_torch"] for row in by[what]]) for what in STEPS},
        "head_adapt_ms": max(row["onnxruntime_ms"] for row in by["head, anil"]),
        "max_diff_float": max(row["max_diff"] for row in floats),
        "max_diff_int8": max(row["max_diff"] for row in by["infer, int8"]),
        "int8_to_float_probability": max(row["from_float"] for row in by["infer, int8"]),
        "int8_ratio_vs_float": geometric_mean([row["float_ratio"] for row in by["infer, int8"]]),
    }


def whole(net: Net) -> dict[str, float]:
    """The Python runtime, from uint8 arrays to names: 5 classes of 5 shots from nothing, then one image."""
    learner, slow = learner_of("protonet", net)
    shots = {f"class {i}": [(255 * x[0]).astype(np.uint8) for x in net.images[net.labels == i]] for i in range(WAY)}
    with tempfile.TemporaryDirectory() as place:
        device = edgemeta_device.Device(bundle.write(Path(place) / "b", slow=slow, learner=learner, facts={}))

        def forget() -> None:
            for known in device.names:
                device.forget(known)

        enroll_ms = timed(lambda: device.enroll(shots), 100, before=forget)
        predict_ms = timed(lambda: device.predict(shots["class 0"][:1]), 100)
    return {"enroll_ms": median(enroll_ms), "predict_ms": median(predict_ms)}


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
