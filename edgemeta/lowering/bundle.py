"""A bundle: one self-contained folder with checked graphs, a manifest and the runtime that drives them.

The format is specified in export/README.md. `write` lowers and checks first; nothing reaches the disk unchecked.
"""

from __future__ import annotations

import datetime
import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from pydantic import ValidationError

import edgemeta
from edgemeta import files
from edgemeta.contracts import Learner, Params
from edgemeta.errors import BadBundle, first_mistake
from edgemeta.latency.cost import flash_kib
from edgemeta.latency.machine import cpu
from edgemeta.latency.measure import time_model
from edgemeta.latency.onnx_net import to_onnx as body_to_onnx
from edgemeta.latency.onnx_parts import IR_VERSION, OPSET
from edgemeta.learners import LEARNERS
from edgemeta.learners.outer import steps_of
from edgemeta.lowering import card, check, int8, manifest, replace, to_onnx
from edgemeta.lowering.manifest import GRAPHS, Manifest, graphs_of
from edgemeta.lowering.memory import peak_kib
from edgemeta.lowering.trace import Sizes, trace
from edgemeta.nets.build import build, fold
from edgemeta.types import KIB, Cost, Op

RUNTIME = tuple(f"edgemeta_{part}.py" for part in ("device", "commands", "files", "graphs", "images", "learned"))
TYPICAL = Sizes(n=25, way=5, queries=1)  # of what is timed and counted
UNITS = {
    "x": "images times normalisation.scale",
    "z": "features",
    "features": "features",
    "onehot": "1 at the class of an example; a row of zeros is padding",
    "steps": "how often the learner's step is applied",
    "logits": "log of unnormalised probabilities",
}
AGAIN = "copy or make the bundle again"  # the next move where one is damaged
ON = {True: "features", False: "images"}  # what a learner works on
Graphs = dict[str, onnx.ModelProto]
Feeds = dict[str, np.ndarray]


def write(
    folder: Path | str,
    *,
    slow: Params,
    learner: Learner,
    facts: Mapping[str, Any],
    scale: float = 1 / 255,
    polarity: str = "as-is",
    predicted: Cost | None = None,
    cap: Cost | None = None,
    body: int8.Quantised | None = None,
    seed: int = 0,
) -> Path:
    """Lower, check and write a bundle; an old one at `folder` is replaced in one move.

    A `body` in int8 takes the place of the float one; the learner works on its features as they are.
    `scale` and `polarity` are those of the training images (see `manifest.Normalisation`); `facts` is any
    JSON worth keeping: accuracies, data, seeds. `seed` decides the fresh data of the check.
    """
    folder = Path(folder)
    refuse_foreign(folder)
    slow = {name: value.detach() for name, value in slow.items()}
    graphs, net = lower(slow, learner), learner.net
    if body is not None:
        graphs["body"] = body.model
    checked = verify(graphs, slow, learner, body=body, seed=seed)
    contents = {f"{name}.onnx": model.SerializeToString() for name, model in graphs.items()}
    contents |= {name: (files.resource("export") / "python" / name).read_bytes() for name in RUNTIME}
    channels, height, width = net.in_shape
    record: dict[str, Any] = {
        "id": "0" * 64,
        "format": manifest.FORMAT,
        "version": manifest.VERSION,
        "learner": {
            "name": learner.name,
            "steps": learner.steps,
            "on": ON[learner.on_features],
            "sums": learner.sums,
        },
        "normalisation": {
            "scale": scale,
            "polarity": polarity,
            "resize": "stretch",
            "channels": channels,
            "height": height,
            "width": width,
        },
        "graphs": {name: _interface(name, model) for name, model in graphs.items()},
        "precision": "fp32" if body is None else "int8",
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "versions": _versions(),
        "checked": checked,
        "costs": _costs(predicted or Cost(), cap or Cost(), contents, adapt_ram_kib(slow, learner)),
        "files": {name: {"sha256": manifest.digest(data), "bytes": len(data)} for name, data in contents.items()},
        "facts": dict(facts),
    }
    made = identified(record, str(folder))
    return replace.folder(folder, contents | {manifest.NAME: as_json(made), card.NAME: card.text(made).encode()})


def lower(slow: Params, learner: Learner) -> Graphs:
    """The graphs, unchecked: images -> features where the learner works on these, support -> fast tensors, and queries
    with fast tensors -> logits."""
    net, traced = learner.net, trace(learner, slow)
    body = {"body": body_to_onnx(net.ops, fold(net.ops, slow))} if learner.on_features else {}
    return {**body, "adapt": to_onnx.adapt(traced, slow), "classify": to_onnx.classify(traced, slow)}


def head_kib(learner: str, ops: Sequence[Op]) -> float:
    """KiB that a learner adds to a network on disk: its adapt and classify graphs, which hold weights of the network as
    well, some of them twice, where it works on images and has no body."""
    made = LEARNERS[learner](build(ops))
    if made.on_features:
        return _graphs_kib(learner, (made.net.dim,), 1)
    probes = [(widths, 3) for widths in ((4, 4), (4, 4, 4), (4, 36, 4), (36, 36, 4))]
    known = np.array([_size(_chain(*probe)) for probe in probes])
    rates = np.linalg.solve(known, [_graphs_kib(learner, *probe) for probe in probes])
    return float(_size(ops) @ rates) - flash_kib(ops)


def _size(ops: Sequence[Op]) -> np.ndarray:
    """What graphs grow with: convolutions, their channels and their weights."""
    convs = [op for op in ops if op.kind == "conv"]
    return np.array([1, len(convs), sum(op.out_shape[0] for op in convs), sum(op.weight_bytes for op in convs)], float)


def _chain(widths: Sequence[int], kernel: int) -> tuple[Op, ...]:
    """The smallest network of so many channels, one convolution after another."""
    shapes = enumerate(pairwise((width, 1, 1) for width in (1, *widths)))
    return tuple(Op("conv", *sides, kernel=kernel, act="relu", inputs=(i - 1,)) for i, sides in shapes)


@lru_cache(maxsize=64)
def _graphs_kib(learner: str, widths: tuple[int, ...], kernel: int) -> float:
    made = LEARNERS[learner](build(_chain(widths, kernel)))
    graphs = lower(made.init(rng=torch.Generator().manual_seed(0)), made)
    return sum(len(graphs[name].SerializeToString()) for name in ("adapt", "classify")) / KIB


def verify(
    graphs: Graphs, slow: Params, learner: Learner, *, body: int8.Quantised | None = None, seed: int
) -> dict[str, Any]:
    """The largest differences from torch on fresh data; raises `BadBundle` past the tolerance."""
    rng, net = np.random.default_rng(seed), learner.net
    expected, tolerance = partial(net.body, slow), check.TOLERANCE
    if body is not None:
        expected, tolerance = partial(int8.simulated, net.ops, body), check.INT8_TOLERANCE
    worst = check.body(graphs["body"], net, expected, rng=rng, tolerance=tolerance) if "body" in graphs else None
    adapt, classify = check.learner(graphs["adapt"], graphs["classify"], learner, slow, rng=rng)
    return {"seed": seed, "tolerance": check.TOLERANCE, "body": worst, "adapt": adapt, "classify": classify}


def adapt_ram_kib(slow: Params, learner: Learner) -> float:
    """What the tensors of an adaptation to `TYPICAL` take at their peak. A second step may need what the first did not,
    a third takes what the second took."""
    traced = trace(learner, slow, TYPICAL)
    return peak_kib(to_onnx.unrolled(traced, slow, steps=min(2, steps_of(learner, TYPICAL.n))))


def read(folder: Path | str) -> Manifest:
    """The manifest of a bundle whose every file is what the manifest says."""
    folder = Path(folder)
    replace.recover(folder)
    found = _validated(_object(folder), str(folder))
    for name, info in found.files.items():
        data = _bounded(folder / name, info.bytes)
        if len(data) != info.bytes or manifest.digest(data) != info.sha256:
            raise BadBundle(f"{folder / name} is not the file that was written with its manifest; {AGAIN}")
    wanted = graphs_of(found.learner.on)
    if set(found.graphs) != set(wanted) or any(graph.file not in found.files for graph in found.graphs.values()):
        raise BadBundle(f"{folder}: the manifest does not list the graphs {', '.join(wanted)}; {AGAIN}")
    if found.id != manifest.bundle_id(found.model_dump(mode="json")):
        raise BadBundle(f"{folder}: the manifest was changed after it was written; {AGAIN}")
    return found


def move(folder: Path | str, target: Path | str) -> Path:
    """Put a copy of a bundle in another place; an old one there is replaced in one move."""
    folder, target = Path(folder), Path(target)
    found = read(folder)
    refuse_foreign(target)
    contents = {name: (folder / name).read_bytes() for name in (manifest.NAME, *found.files)}
    return replace.folder(target, contents | {card.NAME: card.text(found).encode()})


def measure(folder: Path | str, *, threads: int = 1) -> dict[str, Any]:
    """Timings of the bundle's graphs here, each with spread, and what they were taken on.

    `body_ms`: one image. `adapt_ms`: 5 ways of 5 shots, all steps. `classify_ms`: one query of 5 ways.
    """
    found = read(folder)
    models: dict[str, bytes] = {name: (Path(folder) / graph.file).read_bytes() for name, graph in found.graphs.items()}
    feeds = typical(found, models["adapt"])
    timings = {f"{name}_ms": time_model(models[name], feeds[name], threads=threads) for name in found.graphs}
    return {
        **{name: timing._asdict() for name, timing in timings.items()},
        "threads": threads,
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "device": cpu(),
        "measured_on": datetime.date.today().isoformat(),
    }


def update_facts(
    folder: Path | str, facts: Mapping[str, Any], *, measured: Mapping[str, Any] | None = None
) -> Manifest:
    """Add facts, and what `measure` returned, to a bundle's manifest in one rename. The bundle's id stays."""
    record = read(folder).model_dump(mode="json")
    record["facts"].update(facts)
    if measured is not None:
        record["costs"]["measured"] = dict(measured)
    updated = _validated(record, str(folder))
    files.write_bytes(Path(folder) / manifest.NAME, as_json(updated))
    files.write_bytes(Path(folder) / card.NAME, card.text(updated).encode())
    return updated


def typical(found: Manifest, adapt: bytes) -> dict[str, Feeds]:
    """What a 5-way 5-shot task feeds to each graph."""
    rng, shape, (n, way, _) = np.random.default_rng(0), found.normalisation, TYPICAL
    examples, *_ = found.graphs["adapt"].inputs
    steps = n if found.learner.steps is None else found.learner.steps
    support: Feeds = {
        examples.name: rng.random((n, *map(int, examples.shape[1:])), dtype=np.float32),
        "onehot": np.eye(way, dtype=np.float32)[np.arange(n) % way],
        "steps": np.array(steps, np.int64),
    }
    fast = check.run("adapt", check.load("adapt", adapt), support, "timing")
    known = {tensor.name: value for tensor, value in zip(found.graphs["adapt"].outputs, fast, strict=True)}
    known[examples.name] = support[examples.name][:1]
    image = rng.random((1, shape.channels, shape.height, shape.width), dtype=np.float32)
    queries = {tensor.name: known[tensor.name] for tensor in found.graphs["classify"].inputs}
    return {"body": {"x": image}, "adapt": support, "classify": queries}


def _interface(name: str, model: onnx.ModelProto) -> dict[str, Any]:
    def tensors(values: Iterable[onnx.ValueInfoProto]) -> list[dict[str, Any]]:
        return [_tensor(value) for value in values]

    return {"file": f"{name}.onnx", "inputs": tensors(model.graph.input), "outputs": tensors(model.graph.output)}


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = value.type.tensor_type
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    shape = [size.dim_param or size.dim_value for size in kind.shape.dim]
    return {"name": value.name, "dtype": dtype, "shape": shape, "unit": UNITS.get(value.name, "the learner's own")}


def _versions() -> dict[str, str]:
    return {
        "edgemeta": edgemeta.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "platform": sys.platform,
    }


def _costs(predicted: Cost, cap: Cost, contents: Mapping[str, bytes], adapt_ram_kib: float) -> dict[str, Any]:
    graph_bytes = sum(len(data) for name, data in contents.items() if name.endswith(".onnx"))
    return {
        "predicted": predicted.to_json(),
        "caps": cap.to_json(),
        "graph_kib": graph_bytes / KIB,
        "adapt_ram_kib": adapt_ram_kib,
    }


def refuse_foreign(folder: Path) -> None:
    """Replacing a folder deletes what is in it: only a bundle, or nothing, may be replaced."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BadBundle(f"{folder} is a file; choose another folder for the bundle")
    there = {path.name for path in folder.iterdir()} - {"__pycache__"}
    graphs = (f"{name}.{kind}" for name in GRAPHS for kind in ("onnx", "ort"))
    ours = {manifest.NAME, card.NAME, manifest.OPERATORS, *RUNTIME, *graphs}
    if there - ours:
        raise BadBundle(f"{folder} holds {sorted(there - ours)[0]}, not of a bundle; move it or choose another folder")


def _object(folder: Path) -> Any:
    try:
        return json.loads(_bounded(folder / manifest.NAME, manifest.MAX_MANIFEST_BYTES))
    except (ValueError, RecursionError) as error:
        raise BadBundle(f"{folder / manifest.NAME} is not JSON; {AGAIN}") from error


def _bounded(path: Path, limit: int) -> bytes:
    """The bytes of a plain file that is not larger than `limit`."""
    try:
        if path.is_symlink() or not path.is_file():
            raise BadBundle(f"{path} is missing or not a plain file; {AGAIN}")
        if path.stat().st_size > limit:
            raise BadBundle(f"{path} is larger than {limit} bytes; {AGAIN}")
        return path.read_bytes()
    except OSError as error:
        raise BadBundle(f"cannot read {path}: {error.strerror}; {AGAIN}") from error


def identified(record: Any, where: str) -> Manifest:
    """The manifest of a record, with the id that follows from it."""
    found = _validated(record, where)
    return found.model_copy(update={"id": manifest.bundle_id(found.model_dump(mode="json"))})


def _validated(record: Any, where: str) -> Manifest:
    try:
        return Manifest.model_validate(record)
    except ValidationError as error:
        if not error.errors()[0]["loc"]:
            raise BadBundle(f"{where}: the manifest holds no JSON object; {AGAIN}") from error
        wrong = first_mistake(error, "manifest")
        raise BadBundle(f"{where}: {wrong}; correct it or {AGAIN}") from error


def as_json(found: Manifest) -> bytes:
    """manifest.json."""
    try:
        text = json.dumps(found.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise BadBundle(f"a fact is not JSON: {error}; leave out NaN and infinity") from error
    return (text + "\n").encode()
