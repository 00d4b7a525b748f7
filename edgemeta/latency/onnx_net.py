"""From operators straight to ONNX: what is timed is what ships, but for the batch (fixed at 1, or left open)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgemeta.types import FLOAT_BYTES, Op

from . import onnx_int8
from .onnx_parts import IR_VERSION, OPSET, POOL, STORED_SCALE, Cutter, float_body, float_model, model, pool, stored


def to_onnx(
    ops: Sequence[Op], weights: Mapping[str, np.ndarray] | None = None, *, batch: int | None = None
) -> onnx.ModelProto:
    """A float32 model `x (n, C, H, W) -> z (n, dim)`; `batch` fixes n, which runtimes optimise better.

    `weights` are those of `nets.build.fold`; without them, random ones of the right scale, for timing:
    zeros and denormals would run at another speed.
    """
    return float_model(ops, random_weights(ops) if weights is None else weights, batch=batch)


def stored_model(ops: Sequence[Op], *, precision: str = "fp32") -> bytes:
    """The same network for one example, to be timed: its weights are pieces of the file WEIGHTS_FILE beside it.

    Hundreds of such models fit in a few megabytes. Two networks share weights, which no timing can tell.
    """
    if precision == "int8":
        return onnx_int8.stored_model(ops).SerializeToString()
    cutter = Cutter(FLOAT_BYTES * POOL)
    initializers = [tensor for i, op in enumerate(ops) if op.kind == "conv" for tensor in _stored(i, op, cutter)]
    return model(ops, float_body(ops), initializers, batch=1).SerializeToString()


def stored_weights(precision: str = "fp32") -> bytes:
    """What WEIGHTS_FILE holds for models of one precision."""
    return onnx_int8.stored_weights() if precision == "int8" else (pool() * STORED_SCALE).tobytes()


def _stored(i: int, op: Op, cutter: Cutter) -> list[TensorProto]:
    """Kernel and bias; a kernel larger than the file stays in the model."""
    offset = cutter.cut(FLOAT_BYTES * math.prod(op.weight_shape))
    if offset is None:
        kernel = numpy_helper.from_array(np.resize(pool() * STORED_SCALE, op.weight_shape), f"{i}.weight")
    else:
        kernel = stored(f"{i}.weight", op.weight_shape, TensorProto.FLOAT, offset)
    return [kernel, stored(f"{i}.bias", op.out_shape[:1], TensorProto.FLOAT, offset or 0)]


def random_weights(ops: Sequence[Op]) -> dict[str, np.ndarray]:
    """Kaiming-normal kernels and small biases, always the same: cut from one pool, for drawing them takes longer."""
    weights, start = {}, 0
    for i, op in enumerate(ops):
        if op.kind == "conv":
            scale = np.float32(math.sqrt(2 / math.prod(op.weight_shape[1:])))
            weights[f"{i}.weight"] = _normals(start, math.prod(op.weight_shape)).reshape(op.weight_shape) * scale
            weights[f"{i}.bias"] = _normals(start, op.out_shape[0]) * np.float32(0.1)
            start += math.prod(op.weight_shape)
    return weights


def _normals(start: int, count: int) -> np.ndarray:
    """`count` normal numbers (count,) from position `start` of the endless repetition of the pool."""
    start %= POOL
    whole = pool()
    return whole[start : start + count] if start + count <= POOL else np.resize(np.roll(whole, -start), count)


def classify_onnx(*, dim: int = 128, way: int = 5) -> onnx.ModelProto:
    """A nearest-prototype head as on a device: z (1, dim), total (way, dim), count (way, 1) -> logits (way,)."""
    nodes = [
        helper.make_node("Div", ["total", "count"], ["prototypes"]),
        helper.make_node("Sub", ["z", "prototypes"], ["difference"]),
        helper.make_node("Mul", ["difference", "difference"], ["square"]),
        helper.make_node("ReduceSum", ["square", "axis"], ["distance"], keepdims=0),
        helper.make_node("ReduceMean", ["distance"], ["scale"], axes=[0], keepdims=1),
        helper.make_node("Div", ["distance", "scale"], ["relative"]),
        helper.make_node("Neg", ["relative"], ["logits"]),
    ]
    shapes = {"z": [1, dim], "total": [way, dim], "count": [way, 1], "logits": [way]}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
    graph = helper.make_graph(
        nodes, "classify", [values[n] for n in ("z", "total", "count")], [values["logits"]], [axis]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
