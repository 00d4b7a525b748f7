"""What the tensors of a graph of fixed sizes take while it runs."""

from __future__ import annotations

import math
from collections import Counter

import onnx
from onnx import helper, shape_inference

from edgemeta.errors import BadBundle
from edgemeta.types import KIB


def peak_kib(model: onnx.ModelProto) -> float:
    """The most that tensors in use take together, inputs and outputs included, constants not: nodes run in their order,
    and a tensor goes when the last node that reads it has run. A runtime may take more, for its own patches and copies.
    """
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    size = {info.name: _bytes(info) for info in (*graph.input, *graph.value_info, *graph.output)}
    constants = {tensor.name for tensor in graph.initializer}
    waiting = Counter(name for node in graph.node for name in set(node.input) if name)
    waiting.update(info.name for info in graph.output)
    live = peak = sum(size[info.name] for info in graph.input)
    for node in graph.node:
        made = [name for name in node.output if name]
        live += sum(size[name] for name in made)
        peak = max(peak, live)
        for name in set(node.input) - constants - {""}:
            waiting[name] -= 1
            live -= 0 if waiting[name] else size[name]
        live -= sum(size[name] for name in made if not waiting[name])
    return peak / KIB


def _bytes(info: onnx.ValueInfoProto) -> int:
    kind = info.type.tensor_type
    if any(not size.HasField("dim_value") for size in kind.shape.dim) or not kind.HasField("shape"):
        raise BadBundle(f"tensor {info.name} has no fixed size; trace the learner with fixed sizes")
    sizes = [size.dim_value for size in kind.shape.dim]
    return math.prod(sizes) * helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
