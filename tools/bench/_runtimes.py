"""One bundle in every runtime there is here: how long its graphs take, and what they answer.

A runtime that is not installed is left out, and the table says so.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from edgemeta.config import default_cache
from edgemeta.contracts import Params
from edgemeta.lowering import bundle, c_check, to_c
from edgemeta.lowering.manifest import Normalisation
from edgemeta.nets.build import fold, forward
from edgemeta.stages import serve, web_runtime
from edgemeta.types import KIB, Op
from tests.export.web_page import served
from tests.report.browser import BINARY, Browser, browser

HERE = Path(__file__).resolve().parent
SCRIPT = "_time_bundle.mjs"
NODE_MODULES = default_cache() / "node" / "node_modules"
ANSWER_S = 300
Feeds = Mapping[str, Mapping[str, np.ndarray]]  # graph -> its inputs; what `adapt` gives is added for `classify`


class Answer(NamedTuple):
    """Of one graph."""

    ms: float
    outputs: dict[str, np.ndarray]  # flat


class Forward(torch.nn.Module):
    """The network with its batch norms folded in, as exporters of other tools want it."""

    def __init__(self, ops: tuple[Op, ...], slow: Params):
        super().__init__()
        self.ops = ops
        for name, value in fold(ops, slow).items():
            self.register_buffer(name.replace(".", "_"), torch.from_numpy(value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return forward(self.ops, {name.replace("_", "."): value for name, value in self.named_buffers()}, x)


def executorch(net: Forward, x: torch.Tensor) -> tuple[Callable[[], torch.Tensor], float] | None:
    """The network in ExecuTorch on XNNPACK: a call of it, and the KiB of its file; None where it is not installed."""
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
        from executorch.runtime import Runtime
    except ImportError:
        return None
    exported = torch.export.export(net.eval(), (x,))
    made = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    program = Runtime.get().load_program(made.buffer)
    method = program.load_method("forward")
    kept = (program, made)  # the method reads memory of both
    return lambda: method.execute([x])[0] if kept else x, len(made.buffer) / KIB


def task(folder: Path, feeds: Feeds, provider: str) -> dict[str, Any]:
    """A bundle and what to ask it, as JSON for `_time_bundle.mjs`."""
    graphs = bundle.read(folder).graphs
    return {
        "provider": provider,
        "graphs": {name: _base64((folder / graph.file).read_bytes()) for name, graph in graphs.items()},
        "feeds": {name: {key: _tensor(value) for key, value in own.items()} for name, own in feeds.items()},
    }


def _tensor(value: np.ndarray) -> dict[str, Any]:
    return {"type": str(value.dtype), "dims": list(value.shape), "data": _base64(np.ascontiguousarray(value).tobytes())}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def answered(raw: Mapping[str, Any]) -> dict[str, Answer]:
    return {
        name: Answer(one["ms"], {key: np.array(data, np.float64) for key, data in one["outputs"].items()})
        for name, one in raw.items()
    }


def node(folder: Path, feeds: Feeds) -> dict[str, Answer] | None:
    """onnxruntime-node, where `make node` has put it."""
    program, module = shutil.which("node"), NODE_MODULES / "onnxruntime-node" / "dist" / "index.js"
    if not program or not module.exists():
        return None
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "task.json").write_text(json.dumps(task(folder, feeds, "cpu")))
        line = [program, str(HERE / SCRIPT), str(Path(place) / "task.json"), str(module)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=ANSWER_S, check=True)
    return answered(json.loads(done.stdout))


@contextmanager
def chromium() -> Iterator[Browser | None]:
    """A browser with wasm; None where there is none."""
    if BINARY is None or web_runtime.present() is None:
        yield None
        return
    with browser() as opened:
        yield opened


def in_browser(opened: Browser, folder: Path, feeds: Feeds) -> dict[str, Answer]:
    """onnxruntime-web's wasm, one thread."""
    page = b"<!doctype html><title>timing</title>"
    contents = {serve.INDEX: page, "time.mjs": (HERE / SCRIPT).read_bytes()}
    contents |= {f"ort/{name}": data for name, data in (web_runtime.present() or {}).items()}
    contents["task.json"] = json.dumps(task(folder, feeds, "wasm")).encode()
    with served(contents) as address:
        opened.open(address, width=800)
        told = opened.value(
            "(async () => { const ort = await import('/ort/ort.wasm.min.mjs');"
            "const { time } = await import('/time.mjs');"
            "ort.env.wasm.numThreads = 1; ort.env.wasm.wasmPaths = new URL('/ort/', location.href).href;"
            "return JSON.stringify(await time(ort, await (await fetch('/task.json')).json())) })()"
        )
    if not told:
        raise RuntimeError(f"Chromium gave no answer: {opened.complaints()}")
    return answered(json.loads(told))


_MAIN = """\
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "edgemeta_c.h"
#include "task.h"
static em_state state;
static float z[EM_DIM], logits[EM_WAY];
static double ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}
static void embed(void) { em_embed(images[SHOWN], z); }
static void adapt(void) { em_adapt(&state); }
static void classify(void) { em_classify(&state, z, logits); }
static void timed(const char *name, void (*run)(void)) {
    double spent[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        int repeats = 0;
        double begin = ns();
        do { run(); repeats++; } while (ns() - begin < 2e7);
        spent[i] = (ns() - begin) / repeats;
        for (int j = i; j > 0 && spent[j] < spent[j - 1]; j--) {
            double t = spent[j]; spent[j] = spent[j - 1]; spent[j - 1] = t;
        }
    }
    printf("%s %.9g\\n", name, spent[BLOCKS / 2] / 1e6);
}
int main(void) {
    em_init(&state);
    for (int i = 0; i < SHOWN; i++) { em_embed(images[i], z); em_enroll(&state, z, labels[i]); }
    em_adapt(&state);
    em_embed(images[SHOWN], z);
    em_classify(&state, z, logits);
    for (int i = 0; i < EM_DIM; i++) printf("z %.9g\\n", z[i]);
    for (int i = 0; i < EM_WAY; i++) printf("logits %.9g\\n", logits[i]);
    timed("body", embed);
    timed("adapt", adapt);
    timed("classify", classify);
    return 0;
}
"""


def plain_c(learner: Any, slow: Params, folder: Path, images: np.ndarray, labels: np.ndarray, way: int) -> Any:
    """The bundle's C on this machine: (answers, memory, KiB of flash on a Cortex-M4 where there is a compiler). The
    last of the images is asked about, the others are shown."""
    if c_check.lacks(*c_check.HOST):
        return None
    graphs = {name: (folder / f"{name}.onnx").read_bytes() for name in ("body", "adapt", "classify")}
    channels, height, width = learner.net.in_shape
    rule = Normalisation(channels=channels, height=height, width=width)
    sizes: dict[str, Any] = {"rows": len(labels), "way": way, "normalisation": rule, "name": "a benchmark"}
    program = to_c.program(learner, slow, graphs, **sizes)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for name, text in program.files.items():
            (root / name).write_text(text)
        (root / "task.h").write_text(_task_h(images, labels))
        (root / "main.c").write_text(_MAIN)
        sources = ["main.c", "edgemeta_c.c", "em_conv.c", "em_model.c", "em_weights.c"]
        flags = ["-std=gnu99", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-w"]
        subprocess.run(["cc", *flags, *sources, "-lm", "-o", "task"], cwd=root, check=True)
        told = subprocess.run(["./task"], cwd=root, capture_output=True, text=True, timeout=ANSWER_S, check=True)
        taken = {} if c_check.lacks(*c_check.ARM) else c_check.flash(root, "m4")
    found: dict[str, list[float]] = {}
    for line in told.stdout.splitlines():
        name, number = line.split()
        found.setdefault(name, []).append(float(number))
    outputs = {"body": {"z": np.array(found["z"])}, "classify": {"logits": np.array(found["logits"])}}
    answers = {name: Answer(found[name][0], outputs.get(name, {})) for name in ("body", "adapt", "classify")}
    return answers, program.memory, sum(taken.values()) / KIB or None


def _task_h(images: np.ndarray, labels: np.ndarray) -> str:
    rows = ",\n".join("{" + ",".join(f"{float(v).hex()}f" for v in image.ravel()) + "}" for image in images)
    return "\n".join(
        [
            f"#define SHOWN {len(labels)}\n#define BLOCKS 15",
            f"static const float images[SHOWN + 1][EM_IMAGE] = {{\n{rows}\n}};",
            f"static const int labels[SHOWN] = {{{','.join(map(str, labels))}}};",
        ]
    )
