"""Small bundles, and what their graphs answer in ONNX Runtime, driven by a few lines of our own."""

from __future__ import annotations

import importlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from edgemeta import files
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny

DEVICE = files.resource("export") / "python"


def preprocess(image: Any, rule: dict[str, Any]) -> np.ndarray:
    """As the Python runtime does, from its own file."""
    return _images().preprocess(image, rule)


@cache
def _images() -> Any:
    sys.path.insert(0, str(DEVICE))
    return importlib.import_module("edgemeta_images")


def write(folder: Path, name: str, images: np.ndarray) -> Path:
    """The bundle of a learner on a small network whose statistics are those of `images` (n, 1, 12, 12)."""
    space = tiny()
    learner = LEARNERS[name](build(space.ops(space.arch([{"width": 8}, {"width": 8, "depth": 2}]))))
    slow = learner.init(rng=torch.Generator().manual_seed(1))
    for _ in range(20):
        learner.net.body(slow, torch.from_numpy(images), train=True)
    return bundle.write(folder / name, slow=slow, learner=learner, facts={}, polarity="ink-high")


def logits(folder: Path, support: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(q, way) of queries (q, C, H, W) after learning from `support` (n, C, H, W) with classes `labels` (n,)."""
    learner = json.loads((folder / "manifest.json").read_text())["learner"]
    graphs = {path.stem: _open(path) for path in folder.glob("*.onnx")}
    reads = "features" if learner["on"] == "features" else "x"
    if reads == "features":
        support, queries = (_each(graphs["body"], images) for images in (support, queries))
    steps = len(support) if learner["steps"] is None else learner["steps"]
    onehot = np.eye(labels.max() + 1, dtype=np.float32)[labels]
    task = {reads: support, "onehot": onehot, "steps": np.array(steps, np.int64)}
    fast = dict(zip([out.name for out in graphs["adapt"].get_outputs()], graphs["adapt"].run(None, task), strict=True))
    known = {**fast, reads: queries}
    return graphs["classify"].run(None, {put.name: known[put.name] for put in graphs["classify"].get_inputs()})[0]


def _open(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _each(body: onnxruntime.InferenceSession, images: np.ndarray) -> np.ndarray:
    return np.concatenate([body.run(None, {"x": image[None]})[0] for image in images])
