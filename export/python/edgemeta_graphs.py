"""The graphs of a bundle as functions: an image to an example, a support to fast tensors, queries to logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union

import numpy as np
import onnxruntime
from edgemeta_files import AGAIN, DeviceError, Name, line, load_bundle
from edgemeta_images import Image, compact, preprocess, scaled

MAX_STEPS = 1000
PAIRS = 2**14  # of a query and a class in one run of classify, each of which may hold as many numbers as a feature
LOOKS = 2**18  # of a query and an example, where examples are what was learned: a number each
Fast = Mapping[str, np.ndarray]
Many = Union[Sequence[Any], np.ndarray]


class Graphs:
    """A bundle that was loaded and fits together.

    An example is what the learner takes of an image, and what a state keeps of it: features (d,) float32, or where the
    learner works on images the preprocessed image (C, H, W), uint8 if it came as uint8, else float32.
    """

    def __init__(self, folder: Name, threads: int):
        self.manifest, models = load_bundle(folder)
        learner, self.rule = self.manifest["learner"], self.manifest["normalisation"]
        self._sessions = {name: _session(name, model, threads) for name, model in models.items()}
        try:
            self.on_images = learner["on"] == "images"
            self.steps, self.sums = _steps(learner["steps"]), bool(learner["sums"])
            support, *_ = self._sessions["adapt"].get_inputs()
            self.reads, self.shape = support.name, tuple(support.shape[1:])
            image = self._sessions["adapt" if self.on_images else "body"].get_inputs()[0].shape[1:]
            if image != [self.rule[key] for key in ("channels", "height", "width")]:
                raise ValueError("the graphs take images of another size")
            self.fast = {tensor.name: tuple(tensor.shape[1:]) for tensor in self._sessions["adapt"].get_outputs()}
            self._asked = {tensor.name for tensor in self._sessions["classify"].get_inputs()}
            blank = self.example(np.zeros(image, np.uint8))[None]  # what does not fit together is told now
            self.logits(blank, self.adapt(self.input(blank), np.ones((1, 1), np.float32)), 1)
        except Exception as error:
            raise DeviceError(f"{folder} does not run ({line(error)}); {AGAIN}") from None

    def example(self, image: Image) -> np.ndarray:
        """What is kept of an image. One at a time: more would take more memory than the bundle says."""
        if self.on_images:
            return compact(image, self.rule)
        return self._run("body", {"x": preprocess(image, self.rule)[None]})[0][0]

    def input(self, examples: np.ndarray) -> np.ndarray:
        """Examples (n, ...) as the graphs take them, float32."""
        return scaled(examples, self.rule)

    def adapt(self, x: np.ndarray, onehot: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs (n, ...) and onehot float32 (n, way), rows of zeros being padding, to the fast tensors."""
        steps = np.array(len(x) if self.steps is None else self.steps, np.int64)
        values = self._run("adapt", {self.reads: x, "onehot": onehot, "steps": steps})
        if not all(np.isfinite(value).all() for value in values):
            raise DeviceError("learning gave no finite numbers; give images like those of the training")
        return dict(zip(self.fast, values))

    def logits(self, items: Many, fast: Fast, way: int, made: Callable[[Any], np.ndarray] = np.asarray) -> np.ndarray:
        """(n, way) of examples, or of what `made` makes into such, in batches: of one image, or of as many features as
        keep the work small."""
        asked = {name: value for name, value in fast.items() if name in self._asked}
        rows = max([way, *(len(value) for value in asked.values())])
        batch = 1 if self.on_images else max(1, min(PAIRS // way, LOOKS // rows))
        found = [np.zeros((0, way), np.float32)]
        for i in range(0, len(items), batch):
            x = np.stack([self.input(made(item)) for item in items[i : i + batch]])
            found.append(self._run("classify", {self.reads: x, **asked})[0])
        return np.concatenate(found)

    def _run(self, name: str, feeds: Mapping[str, np.ndarray]) -> list[Any]:
        try:
            return self._sessions[name].run(None, feeds)
        except Exception as error:  # the runtime raises a type of its own for each status
            sizes = ", ".join(f"{key} {value.shape}" for key, value in feeds.items() if not key.startswith("fast."))
            raise DeviceError(f"{name}.onnx fails on {sizes}: {line(error)}; use fewer classes or examples") from None


def _session(name: str, model: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise DeviceError(f"onnxruntime {onnxruntime.__version__} cannot load {name}.onnx: {line(error)}") from None


def _steps(steps: Any) -> Any:
    """Of the manifest: a number, or None for one for each row of the support."""
    if steps is None or (type(steps) is int and 0 <= steps <= MAX_STEPS):
        return steps
    raise ValueError(f"steps are {str(steps)[:20]}")
