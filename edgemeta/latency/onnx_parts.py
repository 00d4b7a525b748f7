"""What float and int8 graphs share: geometry, the frame of a model, and the file that timed models cut weights from."""

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
POOL = 2**20  # random numbers that all weights are cut from: drawing fresh ones takes longer
WEIGHTS_FILE = "weights.bin"  # lies beside the models that are timed
KINDS = {
    "conv": "Conv",
    "maxpool": "MaxPool",
    "avgpool": "AveragePool",
    "gap": "GlobalAveragePool",
    "add": "Add",
    "concat": "Concat",
}
STORED_SCALE = np.float32(0.05)  # of float kernels and biases, whatever the fan-in: the biases keep activations alive
ALIGN_BYTES = 64


@lru_cache(maxsize=1)
def pool() -> np.ndarray:
    """POOL standard normal numbers, float32, always the same."""
    return np.random.default_rng(0).standard_normal(POOL, dtype=np.float32)


def value(position: int) -> str:
    """Name of what the operator at `position` gives; -1 is the network's input."""
    return "x" if position < 0 else f"v{position}"


def nodes(i: int, op: Op, inputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The operator at position `i` on these values, a convolution's kernel and bias among them, without its ReLU."""
    name, attributes = f"{i}.{op.kind}", dict[str, Any]()
    if op.kind in ("conv", "maxpool", "avgpool"):
        attributes = dict(kernel_shape=op.window, strides=op.steps)
    if op.kind == "conv" or any(op.pads):
        attributes |= dict(pads=op.pads * 2)
    if op.kind == "conv":
        attributes |= dict(group=op.groups) | (dict(dilations=[op.dilation] * 2) if op.dilation > 1 else {})
    if op.kind == "concat":
        attributes = dict(axis=1)
    if op.kind == "shuffle":
        return _shuffled(name, op, inputs[0], value(i))
    if op.kind not in KINDS:
        raise ValueError(f"no ONNX for operator kind {op.kind!r}")
    return [helper.make_node(KINDS[op.kind], inputs, [value(i)], name=name, **attributes)]


def _shuffled(name: str, op: Op, source: str, result: str) -> list[onnx.NodeProto]:
    """Channels (groups, each) to (each, groups); a size of 0 keeps the batch."""
    channels, height, width = op.in_shape
    parts = [f"{name}.{part}" for part in ("split", "groups", "turned", "whole")]
    shapes = [[0, op.groups, channels // op.groups, height, width], [0, channels, height, width]]
    constants = [
        helper.make_node("Constant", [], [part], value=numpy_helper.from_array(np.array(shape, np.int64)))
        for part, shape in zip((parts[0], parts[3]), shapes, strict=True)
    ]
    return [
        *constants,
        helper.make_node("Reshape", [source, parts[0]], [parts[1]], name=f"{name}.split"),
        helper.make_node("Transpose", [parts[1]], [parts[2]], name=name, perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", [parts[2], parts[3]], [result], name=f"{name}.join"),
    ]


def float_nodes(i: int, op: Op) -> list[onnx.NodeProto]:
    """The operator at position `i`, and the ReLU after it where it has one."""
    inputs = [value(j) for j in op.inputs] + ([f"{i}.weight", f"{i}.bias"] if op.kind == "conv" else [])
    made = nodes(i, op, inputs)
    if op.act == "relu":
        made[-1].output[0] = f"c{i}"
        made.append(helper.make_node("Relu", [f"c{i}"], [value(i)], name=f"{i}.relu"))
    return made


def float_body(ops: Sequence[Op]) -> list[onnx.NodeProto]:
    return [node for i, op in enumerate(ops) for node in float_nodes(i, op)]


def model(
    ops: Sequence[Op],
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[TensorProto],
    *,
    batch: int | None,
    last: str | None = None,
) -> onnx.ModelProto:
    """`x (n, C, H, W) -> z (n, dim)`: nodes that end in the value `last`, which is flattened."""
    flat = numpy_helper.from_array(np.array([0, -1], np.int64), "flat")
    flatten = helper.make_node("Reshape", [last or value(len(ops) - 1), "flat"], ["z"], name="flatten")
    n = BATCH if batch is None else batch
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [n, *ops[0].in_shape])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [n, math.prod(ops[-1].out_shape)])
    graph = helper.make_graph([*nodes, flatten], "body", [x], [z], [*initializers, flat])
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="edgemeta")


def float_model(ops: Sequence[Op], weights: Mapping[str, np.ndarray], *, batch: int | None) -> onnx.ModelProto:
    """The float network with `weights` named as those of `nets.build.fold`."""
    names = [f"{i}.{part}" for i, op in enumerate(ops) if op.kind == "conv" for part in ("weight", "bias")]
    initializers = [numpy_helper.from_array(np.ascontiguousarray(weights[name]), name) for name in names]
    return model(ops, float_body(ops), initializers, batch=batch)


def stored(name: str, shape: Sequence[int], dtype: int, offset: int) -> TensorProto:
    """An initializer that is a piece of WEIGHTS_FILE: `dtype` as in TensorProto, `offset` in bytes."""
    length = math.prod(shape) * np.dtype(helper.tensor_dtype_to_np_dtype(dtype)).itemsize
    tensor = TensorProto(name=name, dims=shape, data_type=dtype, data_location=TensorProto.EXTERNAL)
    for key, text in (("location", WEIGHTS_FILE), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=text)
    return tensor


class Cutter:
    """Where in the file the next kernel begins: one after another, from the start again where the rest is too short."""

    def __init__(self, size: int):
        self._size, self._next = size, 0

    def cut(self, length: int) -> int | None:
        """Byte offset of the next `length` bytes; None where the whole file is shorter."""
        if length > self._size:
            return None
        begin = 0 if self._next + length > self._size else self._next
        self._next = begin + -(-length // ALIGN_BYTES) * ALIGN_BYTES
        return begin
