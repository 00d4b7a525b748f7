"""Torch and ONNX Runtime face the same fresh data before anything is written.

The rule: in every output tensor the largest absolute difference is at most 1e-4 of the tensor's largest value, which
counts as 1 where it is smaller; features alone are held to their own size, however small, because learners may divide
by it. Fast tensors may differ by 1e-2: some are logarithms of gradients (`learners.lstm`), whose last digits are noise;
what they answer is held to 1e-4. Features of an int8 body may differ from the same arithmetic in torch by a few of its
255 steps: where a number lies between two of them, the last digit of a sum decides. A NaN on either side fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from edgemeta.contracts import Fast, Learner, Net, Params, Support
from edgemeta.errors import BadBundle
from edgemeta.lowering.trace import reads
from edgemeta.types import Shape

TOLERANCE, FAST_TOLERANCE, INT8_TOLERANCE = 1e-4, 1e-2, 2.5e-2
BATCHES = (1, 7)


class Case(NamedTuple):
    """One call of the adapt graph: `padding` rows of zeros follow n examples."""

    n: int
    way: int
    padding: int
    steps: int

    def bare_steps(self, steps: int | None) -> int:
        """Steps where the padding is left out, of a learner that takes `steps`."""
        return self.n if steps is None else self.steps


def body(
    model: onnx.ModelProto,
    net: Net,
    expected: Callable[[Tensor], Tensor],
    *,
    rng: np.random.Generator,
    tolerance: float = TOLERANCE,
) -> float:
    """The largest difference of features between the graph and torch, which gives those `expected` of images."""
    runtime, worst = load("body", model.SerializeToString()), 0.0
    for n in BATCHES:
        x = _images(n, net.in_shape, rng)
        with torch.no_grad():
            want = expected(torch.from_numpy(x))
        (got,) = run("body", runtime, {"x": x}, f"n={n}")
        worst = max(worst, _compare("body", "z", got, want, f"n={n}", least=1e-6, tolerance=tolerance))
    return worst


def learner(
    adapt: onnx.ModelProto,
    classify: onnx.ModelProto,
    learner: Learner,
    slow: Params,
    *,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """The largest difference of logits after both graphs, and after `classify` alone, over numbers of examples, ways,
    steps and padding.

    Torch's answers are of the support without the padding: a learner that it changes is refused too.
    """
    name, shape = reads(learner)
    runtimes = load("adapt", adapt.SerializeToString()), load("classify", classify.SerializeToString())
    names, worst = [output.name for output in adapt.graph.output], [0.0, 0.0]
    scale = _scale(learner, slow, rng) if learner.on_features else 1.0
    for case in cases(learner.steps):
        x, onehot, queries = _support(case, shape, scale, rng)
        feeds = {name: x, "onehot": onehot, "steps": np.array(case.steps, np.int64)}
        got = dict(zip(names, run("adapt", runtimes[0], feeds, str(case)), strict=True))
        fast, padded = _expected(learner, slow, x, onehot, queries, case.steps)
        _, logits = _expected(learner, slow, x[: case.n], onehot[: case.n], queries, case.bare_steps(learner.steps))
        for key, value in fast.items():
            _compare("adapt", f"fast.{key}", got[f"fast.{key}"], value, str(case), tolerance=FAST_TOLERANCE)
        (own,) = run("classify", runtimes[1], _read_by(classify, {name: queries} | _arrays(fast)), str(case))
        worst[1] = max(worst[1], _compare("classify", "logits", own, padded, str(case)))
        (scores,) = run("classify", runtimes[1], _read_by(classify, {name: queries, **got}), str(case))
        worst[0] = max(worst[0], _compare("adapt", "logits that follow", scores, logits, str(case)))
    return worst[0], worst[1]


def cases(steps: int | None) -> tuple[Case, ...]:
    """`steps` of the learner: None is one for each row of the support, padding included."""
    sizes = ((1, 1, 0), (25, 5, 0), (7, 3, 2), (25, 5, 5), (40, 20, 3))
    if steps is None:
        return tuple(Case(n, way, padding, n + padding) for n, way, padding in sizes)
    given = (steps, steps, 1, steps, steps + 2)
    return tuple(Case(*size, one) for size, one in zip(sizes, given, strict=True))


def _scale(learner: Learner, slow: Params, rng: np.random.Generator) -> float:
    """How large the features of the body are."""
    with torch.no_grad():
        features = learner.net.body(slow, torch.from_numpy(_images(8, learner.net.in_shape, rng)))
    return max(float(features.square().mean().sqrt()), 1e-3)


def _arrays(fast: Fast) -> dict[str, np.ndarray]:
    return {f"fast.{name}": value.numpy() for name, value in fast.items()}


def _read_by(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {value.name: feeds[value.name] for value in model.graph.input}


def _images(n: int, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    return rng.random((n, *shape), dtype=np.float32)


def _support(
    case: Case, shape: Sequence[int], scale: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of the size that the body gives, or images, in `way` loose groups, and queries from the same groups."""
    centres = rng.standard_normal((case.way, *shape)) * scale

    def near(labels: np.ndarray) -> np.ndarray:
        return (np.abs(centres[labels]) + 0.3 * scale * rng.standard_normal((len(labels), *shape))).astype(np.float32)

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


def _compare(
    graph: str,
    tensor: str,
    got: np.ndarray,
    want: Tensor,
    case: str,
    *,
    least: float = 1.0,
    tolerance: float = TOLERANCE,
) -> float:
    """The difference as a share of the largest value, or of `least` if that is larger; raises past the tolerance."""
    expected = want.numpy()
    if got.shape != expected.shape:
        raise BadBundle(
            f"{graph}.onnx: {tensor} is {got.shape}, torch gives {expected.shape} at {case}; nothing was written"
        )
    magnitude = max(least, float(np.abs(expected).max(initial=0.0)))
    difference = float(np.abs(got.astype(np.float64) - expected).max(initial=0.0)) / magnitude
    if not difference <= tolerance:
        gap = f"differs from torch by {difference:.2g} (at most {tolerance:g})"
        raise BadBundle(f"{graph}.onnx: {tensor} {gap} at {case}; nothing was written")
    return difference


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
