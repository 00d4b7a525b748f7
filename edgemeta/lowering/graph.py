"""Collecting ONNX nodes: one builder per graph or Loop body, constants shared by all of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import fx

from edgemeta.errors import BadBundle

NUMPY: dict[torch.dtype, np.dtype] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
    torch.int64: np.dtype(np.int64),
    torch.int32: np.dtype(np.int32),
    torch.uint8: np.dtype(np.uint8),
    torch.bool: np.dtype(np.bool_),
}


def numpy_type(dtype: torch.dtype) -> np.dtype:
    if dtype not in NUMPY:
        raise BadBundle(f"no ONNX for tensors of {dtype}; use one of {', '.join(map(str, NUMPY))}")
    return NUMPY[dtype]


def onnx_type(dtype: torch.dtype) -> int:
    return helper.np_dtype_to_tensor_dtype(numpy_type(dtype))


@dataclass
class Constants:
    """The initializers of a model; equal ones are kept once. A Loop body reads them from the graph around it."""

    tensors: list[TensorProto] = field(default_factory=list)
    _names: dict[tuple, str] = field(default_factory=dict)

    def add(self, value: np.ndarray, name: str | None = None) -> str:
        value = np.ascontiguousarray(value).reshape(np.shape(value))
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._names:
            self._names[key] = name or f"constant.{len(self.tensors)}"
            self.tensors.append(numpy_helper.from_array(value, self._names[key]))
        return self._names[key]


@dataclass
class Builder:
    """Nodes in order of execution. A traced size is a one-element int64 tensor, as ONNX wants its shapes."""

    prefix: str  # keeps names unique: a Loop body may not reuse a name of the graph around it
    constants: Constants
    names: dict[fx.Node, str | list[str]] = field(default_factory=dict)
    nodes: list[NodeProto] = field(default_factory=list)
    told: list[ValueInfoProto] = field(default_factory=list)  # shapes that inference does not find

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append one node with one output, and return the output's name."""
        output = output or f"{self.prefix}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"{output}.{kind}", **attributes))
        return output

    def constant(self, value: Any, dtype: torch.dtype) -> str:
        return self.constants.add(np.asarray(value, dtype=numpy_type(dtype)))

    def tensor(self, value: Any, dtype: torch.dtype | None = None) -> str:
        """The name of a traced tensor, size or plain number, cast to `dtype` where it has another."""
        if not isinstance(value, fx.Node):
            return self.constant(value, dtype or torch.get_default_dtype())
        name = self.names[value]
        assert isinstance(name, str), f"{value} has several outputs"
        held = value.meta["val"]
        if not isinstance(held, torch.Tensor):  # a size
            name, held_dtype = self.add("Squeeze", name), torch.int64
        else:
            held_dtype = held.dtype
        return name if dtype in (None, held_dtype) else self.add("Cast", name, to=onnx_type(dtype))

    def size(self, value: float | fx.Node) -> str:
        """A number or traced size as a one-element int64 tensor."""
        if isinstance(value, float):
            raise BadBundle(f"no ONNX for sizes times {value}; multiply a tensor by the size")
        name = self.names[value] if isinstance(value, fx.Node) else self.ints([value])
        assert isinstance(name, str)
        return name

    def shape(self, node: fx.Node) -> str:
        """The sizes of a traced tensor as an int64 tensor."""
        sizes = node.meta["val"].shape
        fixed = all(isinstance(size, int) for size in sizes)
        return self.ints(list(sizes)) if fixed else self.add("Shape", self.tensor(node))

    def tell(self, name: str, node: fx.Node) -> str:
        """Keep the shape of a result where it is fixed."""
        value = node.meta["val"]
        if all(isinstance(size, int) for size in value.shape):
            self.told.append(helper.make_tensor_value_info(name, onnx_type(value.dtype), list(value.shape)))
        return name

    def ints(self, values: Sequence[int | fx.Node]) -> str:
        """A list of numbers and traced sizes as one int64 tensor."""
        if not any(isinstance(value, fx.Node) for value in values):
            return self.constant(list(values), torch.int64)
        parts = [self.size(value) for value in values]
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=0)
