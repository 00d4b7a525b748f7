"""Torch and ONNX Runtime face the same fresh data before anything is written.

The rule: in every output tensor the largest absolute difference is at most 1e-4 of the tensor's largest value, which
counts as 1 where it is smaller; features alone are held to their own size, however small, because learners may divide
by it. A NaN on either side fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from edgemeta.contracts import Fast, Learner, Net, Params, Support
from edgemeta.errors import BadBundle
from edgemeta.types import Shape

TOLERANCE = 1e-4
BATCHES = (1, 7)


class Case(NamedTuple):
    """One call of the adapt graph: `padding` rows of zeros follow n examples."""

    n: int
    way: int
    padding: int
    steps: int


def body(model: onnx.ModelProto, net: Net, slow: Params, *, rng: np.random.Generator) -> float:
    """The largest difference of features between `net.body` in evaluation and the graph."""
    runtime, worst = load("body", model.SerializeToString()), 0.0
    for n in BATCHES:
        x = _images(n, net.in_shape, rng)
        with torch.no_grad():
            want = net.body(slow, torch.from_numpy(x))
        (got,) = run("body", runtime, {"x": x}, f"n={n}")
        worst = max(worst, _compare("body", "z", got, want, f"n={n}", least=1e-6))
    return worst


def learner(
    adapt: onnx.ModelProto,
    classify: onnx.ModelProto,
    learner: Learner,
    slow: Params,
    *,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """The largest difference of the fast tensors and of the logits, over numbers of examples, ways, steps, padding.

    Torch never sees the padding: a learner that it changes is refused too.
    """
    net = learner.net
    runtimes = load("adapt", adapt.SerializeToString()), load("classify", classify.SerializeToString())
    names = [output.name for output in adapt.graph.output]
    with torch.no_grad():
        scale = float(net.body(slow, torch.from_numpy(_images(8, net.in_shape, rng))).square().mean().sqrt())
    worst = [0.0, 0.0]
    for case in cases(learner.steps or 1):
        x, onehot, queries = _support(case, net.dim, max(scale, 1e-3), rng)
        feeds = {"features": x, "onehot": onehot, "steps": np.array(case.steps, np.int64)}
        got = dict(zip(names, run("adapt", runtimes[0], feeds, str(case)), strict=True))
        fast, logits = _expected(learner, slow, x[: case.n], onehot[: case.n], queries, case.steps)
        for name, value in fast.items():
            worst[0] = max(worst[0], _compare("adapt", f"fast.{name}", got[f"fast.{name}"], value, str(case)))
        (scores,) = run("classify", runtimes[1], {"features": queries, **got}, str(case))
        worst[1] = max(worst[1], _compare("classify", "logits", scores, logits, str(case)))
    return worst[0], worst[1]


def cases(steps: int) -> tuple[Case, ...]:
    return (
        Case(1, 1, 0, steps),
        Case(25, 5, 0, steps),
        Case(7, 3, 2, 1),
        Case(25, 5, 5, steps),
        Case(40, 20, 3, steps + 2),
    )


def _images(n: int, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    return rng.random((n, *shape), dtype=np.float32)


def _support(case: Case, dim: int, scale: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of the size that the body gives, in `way` loose groups, and queries from the same groups."""
    centres = rng.standard_normal((case.way, dim)) * scale

    def near(labels: np.ndarray) -> np.ndarray:
        return (np.abs(centres[labels]) + 0.3 * scale * rng.standard_normal((len(labels), dim))).astype(np.float32)

    labels = np.arange(case.n + case.padding) % case.way
    onehot = np.eye(case.way, dtype=np.float32)[labels]
    onehot[case.n :] = 0.0
    return near(labels), onehot, near(np.arange(9) % case.way)


def _expected(
    learner: Learner, slow: Params, x: np.ndarray, onehot: np.ndarray, queries: np.ndarray, steps: int
) -> tuple[Fast, Tensor]:
    with torch.no_grad():
        support = Support(torch.from_numpy(x), torch.from_numpy(onehot))
        fast = learner.start(slow, support)
        for _ in range(steps):
            fast = learner.step(slow, fast, support)
        return fast, learner.predict(slow, fast, torch.from_numpy(queries))


def load(name: str, model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises its own types, one for each status
        raise BadBundle(f"{name}.onnx: ONNX Runtime does not load it: {_line(error)}; nothing was written") from error


def run(
    name: str, runtime: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray], case: str
) -> list[np.ndarray]:
    try:
        return runtime.run(None, feeds)
    except Exception as error:
        raise BadBundle(f"{name}.onnx: ONNX Runtime fails at {case}: {_line(error)}; nothing was written") from error


def _compare(graph: str, tensor: str, got: np.ndarray, want: Tensor, case: str, *, least: float = 1.0) -> float:
    """The difference as a share of the largest value, or of `least` if that is larger; raises past the tolerance."""
    expected = want.numpy()
    if got.shape != expected.shape:
        raise BadBundle(
            f"{graph}.onnx: {tensor} is {got.shape}, torch gives {expected.shape} at {case}; nothing was written"
        )
    magnitude = max(least, float(np.abs(expected).max(initial=0.0)))
    difference = float(np.abs(got.astype(np.float64) - expected).max(initial=0.0)) / magnitude
    if not difference <= TOLERANCE:
        gap = f"differs from torch by {difference:.2g} (at most {TOLERANCE:g})"
        raise BadBundle(f"{graph}.onnx: {tensor} {gap} at {case}; nothing was written")
    return difference


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
