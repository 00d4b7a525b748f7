"""A body in int8, and the same arithmetic in torch to hold it against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from edgemeta.contracts import Net, Params
from edgemeta.latency.onnx_int8 import LEVELS, Range, calibrate, calibration_model, spans_of, step_of, to_onnx
from edgemeta.latency.onnx_parts import value
from edgemeta.lowering import check
from edgemeta.nets.build import fold, forward
from edgemeta.types import Op

WEIGHT_BITS = 7  # two products then fit the 16-bit sums of x86 without VNNI: every processor gives the same answers
TOGETHER = 64  # images


class Quantised(NamedTuple):
    """A body as an int8 graph, and the range of every activation that it was calibrated to."""

    model: onnx.ModelProto
    ranges: Mapping[str, Range]


def quantise(net: Net, slow: Params, images: np.ndarray) -> Quantised:
    """Calibrated on `images`, float32 (n, C, H, W) as the body takes them; weights are rounded as they are.

    Activations have 8 bits between their least and largest value on these images, filters WEIGHT_BITS and a scale each
    (Jacob 2018, arXiv:1712.05877; Krishnamoorthi 2018, arXiv:1806.08342).
    """
    weights = fold(net.ops, slow)
    watched = check.load("body", calibration_model(net.ops, weights).SerializeToString())
    batches = [images[start : start + TOGETHER] for start in range(0, len(images), TOGETHER)]
    ranges = calibrate(lambda x: check.run("body", watched, {"x": x}, "calibration"), batches)
    return Quantised(to_onnx(net.ops, weights, ranges, weight_bits=WEIGHT_BITS), ranges)


def simulated(ops: Sequence[Op], body: Quantised, x: Tensor) -> Tensor:
    """x (n, C, H, W) -> features (n, dim) in float32 that is rounded wherever the graph rounds."""
    spans = spans_of(ops, body.ranges)
    return forward(ops, _constants(body.model), x, lambda i, y: _rounded(y, spans[value(i)]))


def _rounded(x: Tensor, span: Range) -> Tensor:
    step = float(step_of(span))
    zero = round(-span[0] / step)
    return (torch.round(x / step) + zero).clamp(0, LEVELS).sub(zero) * step


def _constants(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Kernels and biases as the graph has them: whole numbers times a scale for each filter."""
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {}
    for name in (name.removesuffix(".q") for name in known if name.endswith(".q")):
        scale = known[f"{name}.scale"].astype(np.float64)
        whole = known[f"{name}.q"].astype(np.float64)
        found[name] = torch.from_numpy((whole * scale.reshape(-1, *[1] * (whole.ndim - 1))).astype(np.float32))
    return found
