"""From operators to an int8 graph: unsigned activations, signed weights with a scale per filter, 32-bit biases.

The graph is written with QuantizeLinear and DequantizeLinear around float operators, which runtimes fuse into integer
operators (Jacob 2018, arXiv:1712.05877). Input and output stay float32, so a body keeps its interface. There is no ReLU
node: where the zero point is 0, quantising cuts off what is negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgemeta.types import Op

from .onnx_parts import POOL, STORED_SCALE, Cutter, float_model, model, nodes, pool, stored, value

Range = tuple[float, float]  # lowest and highest value of an activation
LEVELS = 255  # steps of an unsigned byte
SPREAD = 32.0  # standard deviation of stored kernels, in steps of 1 out of 127
WIDEST = 4096  # filters of a convolution whose constants are stored in the file
BIASES, SCALES, ZEROS = POOL, POOL + 4 * WIDEST, POOL + 8 * WIDEST  # where they begin, in bytes; kernels begin at 0


def to_onnx(
    ops: Sequence[Op],
    weights: Mapping[str, np.ndarray],
    ranges: Mapping[str, Range],
    *,
    batch: int | None = None,
    weight_bits: int = 8,
) -> onnx.ModelProto:
    """An int8 model `x (n, C, H, W) float32 -> z (n, dim) float32`.

    `weights` are those of `nets.build.fold`, `ranges` those of `calibrate`. `weight_bits=7` is for x86 without VNNI
    instructions, whose 16-bit sums of two products overflow with 8-bit weights.
    """
    spans = spans_of(ops, ranges)
    initializers = _activations(spans)
    for i, op in enumerate(ops):
        if op.kind == "conv":
            kernel, bias = weights[f"{i}.weight"], weights[f"{i}.bias"]
            initializers += _constants(i, kernel, bias, step_of(spans[value(op.inputs[0])]), weight_bits)
    return model(ops, _nodes(ops), initializers, batch=batch, last=f"{value(len(ops) - 1)}.dq")


def calibration_model(ops: Sequence[Op], weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The float network with every activation as an output, in the order of `ops`."""
    made = float_model(ops, weights, batch=None)
    outputs = [
        helper.make_tensor_value_info(value(i), TensorProto.FLOAT, ["n", *op.out_shape]) for i, op in enumerate(ops)
    ]
    del made.graph.output[:]
    made.graph.output.extend(outputs)
    return made


def calibrate(run: Callable[[np.ndarray], Sequence[np.ndarray]], batches: Iterable[np.ndarray]) -> dict[str, Range]:
    """Lowest and highest value of the input and of every activation over `batches` of images (n, C, H, W).

    `run` gives the outputs of `calibration_model`.
    """
    ranges: dict[str, Range] = {}
    for x in batches:
        for position, activation in enumerate([x, *run(x)], start=-1):
            name, low, high = value(position), float(activation.min()), float(activation.max())
            before = ranges.get(name, (low, high))
            ranges[name] = min(before[0], low), max(before[1], high)
    return ranges


def stored_model(ops: Sequence[Op]) -> onnx.ModelProto:
    """An int8 model for one example, to be timed: its kernels are pieces of what `stored_weights` gives."""
    spans, cutter = spans_of(ops, _stored_ranges(ops)), Cutter(POOL)
    initializers = _activations(spans)
    for i, op in enumerate(ops):
        if op.kind == "conv":
            initializers += _stored(i, op, step_of(spans[value(op.inputs[0])]), cutter.cut(math.prod(op.weight_shape)))
    return model(ops, _nodes(ops), initializers, batch=1, last=f"{value(len(ops) - 1)}.dq")


def stored_weights() -> bytes:
    """Kernels (POOL,) int8, then for WIDEST filters: biases int32, scales float32, zero points int8."""
    biases = (1000 * pool()[:WIDEST]).astype(np.int32)
    scales = np.full(WIDEST, STORED_SCALE / SPREAD, np.float32)
    return _stored_kernels().tobytes() + biases.tobytes() + scales.tobytes() + bytes(WIDEST)


def _stored_kernels() -> np.ndarray:
    return np.clip(np.rint(SPREAD * pool()), -127, 127).astype(np.int8)


def _nodes(ops: Sequence[Op]) -> list[onnx.NodeProto]:
    made = _quantise("x")
    for i, op in enumerate(ops):
        inputs = [f"{value(j)}.dq" for j in op.inputs]
        for name in (f"{i}.weight", f"{i}.bias") if op.kind == "conv" else ():
            made.append(_dequantise(name, axis=0))
            inputs.append(f"{name}.dq")
        made += nodes(i, op, inputs)
        made += _quantise(value(i))
    return made


def _quantise(name: str) -> list[onnx.NodeProto]:
    constants = [f"{name}.scale", f"{name}.zero"]
    node = helper.make_node("QuantizeLinear", [name, *constants], [f"{name}.q"], name=f"{name}.quantise")
    return [node, _dequantise(name)]


def _dequantise(name: str, **settings: Any) -> onnx.NodeProto:
    inputs = [f"{name}.{part}" for part in ("q", "scale", "zero")]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}.dq"], name=f"{name}.dequantise", **settings)


def spans_of(ops: Sequence[Op], ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Range of each value, zero included: from zero after a ReLU, and its input's for a pool, which works on bytes."""
    spans = {"x": _around_zero(ranges["x"])}
    for i, op in enumerate(ops):
        found = spans[value(op.inputs[0])] if op.kind == "maxpool" else _around_zero(ranges[value(i)])
        spans[value(i)] = (0.0, found[1]) if op.act == "relu" else found
    return spans


def _around_zero(span: Range) -> Range:
    return min(span[0], 0.0), max(span[1], 0.0)


def step_of(span: Range) -> np.float32:
    """Size of one step; any will do where nothing but zero occurs."""
    return np.float32((span[1] - span[0]) / LEVELS or 1 / LEVELS)


def _activations(spans: Mapping[str, Range]) -> list[TensorProto]:
    constants = []
    for name, span in spans.items():
        zero = np.uint8(round(-span[0] / float(step_of(span))))
        constants += [_constant(f"{name}.scale", step_of(span)), _constant(f"{name}.zero", zero)]
    return constants


def _constants(i: int, kernel: np.ndarray, bias: np.ndarray, step: np.float32, bits: int) -> list[TensorProto]:
    """Kernel and bias of a convolution whose input has steps of `step`.

    A filter that is small beside its bias gets a coarser scale, or the bias would pass 32 bits.
    """
    top = 2 ** (bits - 1) - 1
    largest = np.abs(kernel).reshape(len(kernel), -1).max(1)
    scale = np.maximum(largest / top, np.abs(bias) / (float(step) * 2**30))
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    quantised = np.clip(np.rint(kernel / scale[:, None, None, None]), -top, top).astype(np.int8)
    sums = np.rint(bias / (scale.astype(np.float64) * step)).astype(np.int32)
    return [
        _constant(f"{i}.weight.q", quantised),
        _constant(f"{i}.weight.scale", scale),
        _constant(f"{i}.weight.zero", np.zeros(len(kernel), np.int8)),
        _constant(f"{i}.bias.q", sums),
        _constant(f"{i}.bias.scale", scale * step),
        _constant(f"{i}.bias.zero", np.zeros(len(kernel), np.int32)),
    ]


def _constant(name: str, values: np.ndarray | np.generic) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def _stored_ranges(ops: Sequence[Op]) -> dict[str, Range]:
    """What activations reach with stored kernels, roughly: a fan-in of n multiplies them by STORED_SCALE sqrt(n)."""
    tops = {"x": 4.0}
    for i, op in enumerate(ops):
        top = sum(tops[value(j)] for j in op.inputs)
        gain = float(STORED_SCALE) * math.sqrt(math.prod(op.weight_shape[1:])) if op.kind == "conv" else 1.0
        tops[value(i)] = max(1e-9, top * gain)
    return {name: (-top, top) for name, top in tops.items()}


def _stored(i: int, op: Op, step: np.float32, offset: int | None) -> list[TensorProto]:
    """As `_constants`, but pieces of the file; what is larger than the file stays in the model."""
    scale, width = STORED_SCALE / np.float32(SPREAD), op.out_shape[:1]
    if offset is None or op.out_shape[0] > WIDEST:
        kernel = np.resize(_stored_kernels(), op.weight_shape) * scale
        return _constants(i, kernel, np.zeros(width, np.float32), step, bits=8)
    return [
        stored(f"{i}.weight.q", op.weight_shape, TensorProto.INT8, offset),
        stored(f"{i}.weight.scale", width, TensorProto.FLOAT, SCALES),
        stored(f"{i}.weight.zero", width, TensorProto.INT8, ZEROS),
        stored(f"{i}.bias.q", width, TensorProto.INT32, BIASES),
        _constant(f"{i}.bias.scale", scale * step),
        _constant(f"{i}.bias.zero", np.int32(0)),
    ]
