"""Answers of ONNX Runtime that a C program is held against, on images that C can draw for itself.

The graphs that answer are those of the bundle, for any number of examples: the C's own, of fixed sizes and padded,
take no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime

from edgemeta.contracts import Learner
from edgemeta.learners.outer import steps_of
from edgemeta.lowering import check
from edgemeta.types import Shape

SHOTS, QUERIES = 2, 3  # images per class at most; images asked about
CELLS = 4  # of a class's pattern, along each side
NOISE = 0.25


def header(learner: Learner, graphs: Mapping[str, bytes], *, rows: int, way: int, seed: int) -> str:
    """em_golden.h: how the images follow from `seed`, and what the graphs of a bundle make of them.

    Images 0 to `shown` - 1 are examples, of class i % way; those behind them are asked about. Then class 0 is
    forgotten.
    """
    shown = min(rows, SHOTS * way)
    images = np.stack([image(i, way, learner.net.in_shape, seed) for i in range(shown + QUERIES)])
    labels = np.arange(shown) % way
    runtimes = {name: check.load(name, graph) for name, graph in graphs.items()}
    (z,) = runtimes["body"].run(None, {"x": images})
    every = np.ones(shown, bool)
    logits = [_logits(runtimes, learner, z[:shown][kept], labels[kept], z[shown:], way) for kept in (every, labels > 0)]
    values = {"features": z[shown:], "logits": logits[0], "forgotten": logits[1]}
    sizes = {"SEED": seed % 2**32, "SHOWN": shown, "QUERIES": QUERIES, "CELLS": CELLS}
    return "\n".join(
        [
            "/* What ONNX Runtime answers on images that em_selftest.c draws: written by edgemeta. */",
            *(f"#define EM_GOLDEN_{key} {value}u" for key, value in sizes.items()),
            f"#define EM_GOLDEN_NOISE {NOISE}f",
            *(_table(key, value) for key, value in values.items()),
            "",
        ]
    )


def image(number: int, way: int, shape: Shape, seed: int) -> np.ndarray:
    """Cells of random shades, which make the class, and noise over them: float32 (C, H, W) in 0..1."""
    channels, height, width = shape
    place = np.arange(channels * height * width, dtype=np.uint32)
    y, x = place // np.uint32(width) % np.uint32(height), place % np.uint32(width)
    cell = y * np.uint32(CELLS) // np.uint32(height) * np.uint32(CELLS) + x * np.uint32(CELLS) // np.uint32(width)
    shades = noise(np.uint32(seed % 2**32), np.uint32(number % way), cell)
    over = noise(np.uint32(seed % 2**32), np.uint32(1000 + number), place)
    values = shades * np.float32(1 - NOISE) + over * np.float32(NOISE)
    return values.astype(np.float32).reshape(shape)


def noise(seed: np.uint32, stream: np.uint32, place: np.ndarray) -> np.ndarray:
    """Random float32 in 0..1 of 24 bits each (the finaliser of MurmurHash3); em_selftest.c has the same lines."""
    with np.errstate(over="ignore"):
        h = place.astype(np.uint32) * np.uint32(0x9E3779B1) + stream * np.uint32(0x85EBCA77) + seed
        h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        h = h ^ (h >> np.uint32(16))
    return (h >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def _logits(
    runtimes: Mapping[str, onnxruntime.InferenceSession],
    learner: Learner,
    z: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    way: int,
) -> np.ndarray:
    """(queries, way); a class without examples has none."""
    support = {"features": z, "onehot": np.eye(way, dtype=np.float32)[labels]}
    steps = np.array(steps_of(learner, len(z)), np.int64)
    fast = check.run("adapt", runtimes["adapt"], {**support, "steps": steps}, "golden")
    names = [output.name for output in runtimes["adapt"].get_outputs()]
    feeds = {"features": queries, **dict(zip(names, fast, strict=True))}
    asked = {value.name: feeds[value.name] for value in runtimes["classify"].get_inputs()}
    (logits,) = check.run("classify", runtimes["classify"], asked, "golden")
    return np.where(np.isin(np.arange(way), labels), logits, -np.inf)


def _table(name: str, values: np.ndarray) -> str:
    rows = ",\n".join("    {" + ", ".join(map(_number, row)) + "}" for row in values.tolist())
    return f"static const float em_golden_{name}[{len(values)}][{values.shape[1]}] = {{\n{rows}\n}};"


def _number(value: float) -> str:
    return "-INFINITY" if value == -np.inf else f"{value.hex()}f"
