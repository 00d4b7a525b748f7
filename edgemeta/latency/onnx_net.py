"""From operators straight to ONNX: what is timed is what ships, but for the batch (fixed at 1, or left open)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgemeta.types import Op

OPSET = 17
IR_VERSION = 8  # ONNX Runtime 1.13 and later read it
BATCH = "n"


def to_onnx(
    ops: Sequence[Op], weights: Mapping[str, np.ndarray] | None = None, *, batch: int | None = None
) -> onnx.ModelProto:
    """A float32 model `x (n, C, H, W) -> z (n, dim)`; `batch` fixes n, which runtimes optimise better.

    `weights` are those of `nets.build.fold`; without them, random ones of the right scale, for timing:
    zeros and denormals would run at another speed.
    """
    weights = random_weights(ops) if weights is None else weights
    nodes, initializers = [], []
    for i, op in enumerate(ops):
        inputs = ["x" if j < 0 else f"v{j}" for j in op.inputs]
        if op.kind == "conv":
            inputs += [f"{i}.weight", f"{i}.bias"]
            initializers += [numpy_helper.from_array(np.ascontiguousarray(weights[name]), name) for name in inputs[-2:]]
        nodes += _nodes(i, op, inputs)
    flat = numpy_helper.from_array(np.array([0, -1], np.int64), "flat")
    nodes.append(helper.make_node("Reshape", [f"v{len(ops) - 1}", "flat"], ["z"], name="flatten"))
    n = BATCH if batch is None else batch
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [n, *ops[0].in_shape])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [n, math.prod(ops[-1].out_shape)])
    graph = helper.make_graph(nodes, "body", [x], [z], [*initializers, flat])
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="edgemeta")


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


_POOL = 2**20


@lru_cache(maxsize=1)
def _pool() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(_POOL, dtype=np.float32)


def _normals(start: int, count: int) -> np.ndarray:
    """`count` normal numbers (count,) from position `start` of the endless repetition of the pool."""
    start %= _POOL
    whole = _pool()
    return whole[start : start + count] if start + count <= _POOL else np.resize(np.roll(whole, -start), count)


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


def _nodes(i: int, op: Op, inputs: list[str]) -> list[onnx.NodeProto]:
    name = f"{i}.{op.kind}"
    if op.kind == "conv":
        out = f"c{i}" if op.act == "relu" else f"v{i}"
        geometry: dict[str, Any] = dict(
            kernel_shape=[op.kernel] * 2, strides=[op.stride] * 2, pads=[op.kernel // 2] * 4, group=op.groups
        )
        conv = helper.make_node("Conv", inputs, [out], name=name, **geometry)
        return [conv, helper.make_node("Relu", [out], [f"v{i}"], name=f"{i}.relu")] if op.act == "relu" else [conv]
    if op.kind == "maxpool":
        size, step = [op.kernel] * 2, [op.stride] * 2
        return [helper.make_node("MaxPool", inputs, [f"v{i}"], name=name, kernel_shape=size, strides=step)]
    if op.kind == "add":
        return [helper.make_node("Add", inputs, [f"v{i}"], name=name)]
    if op.kind == "gap":
        return [helper.make_node("GlobalAveragePool", inputs, [f"v{i}"], name=name)]
    raise ValueError(f"no ONNX for operator kind {op.kind!r}")
