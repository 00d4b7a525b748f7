"""Shapes, slices, new tensors and indexing in ONNX, beside the `rules` of what works element by element."""

from __future__ import annotations

import operator

import torch
from onnx import helper
from torch import fx

from edgemeta.errors import BadBundle
from edgemeta.lowering.graph import Builder, onnx_type
from edgemeta.lowering.rules import Node, argument, axes, dtype_of, rank, rule

aten = torch.ops.aten
LAST = torch.iinfo(torch.int64).max  # torch's "to the end" of a slice


@rule(aten.sym_size)
def _size(b: Builder, node: Node) -> str:
    axis = axes(node.args[0], node.args[1])[0]
    return b.add("Shape", b.tensor(node.args[0]), start=axis, end=axis + 1)


@rule(aten.permute)
def _permute(b: Builder, node: Node) -> str:
    return b.add("Transpose", b.tensor(node.args[0]), perm=axes(node.args[0], node.args[1]))


@rule(aten.view, aten.reshape, aten._unsafe_view)
def _reshape(b: Builder, node: Node) -> str:
    return b.add("Reshape", b.tensor(node.args[0]), b.ints(node.args[1]))


@rule(aten.expand)
def _expand(b: Builder, node: Node) -> str:
    sizes = [1 if isinstance(size, int) and size == -1 else size for size in node.args[1]]
    return b.add("Expand", b.tensor(node.args[0]), b.ints(sizes)) if sizes else b.tensor(node.args[0])


@rule(aten.repeat)
def _repeat(b: Builder, node: Node) -> str:
    name, times = b.tensor(node.args[0]), node.args[1]
    missing = len(times) - rank(node.args[0])
    name = b.add("Unsqueeze", name, b.ints(list(range(missing)))) if missing else name
    return b.add("Tile", name, b.ints(times))


@rule(aten.unsqueeze)
def _unsqueeze(b: Builder, node: Node) -> str:
    return b.add("Unsqueeze", b.tensor(node.args[0]), b.ints([node.args[1]]))


@rule(aten.squeeze, aten.squeeze_)
def _squeeze(b: Builder, node: Node) -> str:
    """Torch passes over dimensions that are not 1, ONNX fails there."""
    shape = node.args[0].meta["val"].shape
    over = [d for d in axes(node.args[0], argument(node, 1, "dim")) if isinstance(shape[d], int) and shape[d] == 1]
    return b.add("Squeeze", b.tensor(node.args[0]), b.ints(over)) if over else b.tensor(node.args[0])


@rule(aten.slice)
def _slice(b: Builder, node: Node) -> str:
    axis, step = argument(node, 1, "dim", 0), argument(node, 4, "step", 1)
    start, end = argument(node, 2, "start") or 0, argument(node, 3, "end")
    end = LAST if end is None else end
    name = b.tensor(node.args[0])
    if (start, end, step) == (0, LAST, 1):
        return name
    return b.add("Slice", name, b.size(start), b.size(end), b.ints([axis]), b.size(step))


@rule(aten.slice_scatter)
def _slice_scatter(b: Builder, node: Node) -> str:
    """What is before the slice, the new values, what is after."""
    source, update = map(b.tensor, node.args[:2])
    axis, start, end = argument(node, 2, "dim", 0), argument(node, 3, "start") or 0, argument(node, 4, "end")
    if argument(node, 5, "step", 1) != 1:
        raise BadBundle("no ONNX for slice_scatter with a step; scatter by index")
    parts = [update]
    if start != 0:
        parts.insert(0, b.add("Slice", source, b.ints([0]), b.size(start), b.ints([axis])))
    if end is not None and end != LAST:
        parts.append(b.add("Slice", source, b.size(end), b.ints([LAST]), b.ints([axis])))
    return b.add("Concat", *parts, axis=axis) if len(parts) > 1 else update


@rule(aten.topk)
def _top(b: Builder, node: Node) -> list[str]:
    source, count = node.args[:2]
    axis, largest = argument(node, 2, "dim", -1), int(argument(node, 3, "largest", True))
    values = f"{b.prefix}.{len(b.nodes)}"
    inputs, outputs = [b.tensor(source), b.size(count)], [values, f"{values}.places"]
    b.nodes.append(helper.make_node("TopK", inputs, outputs, name=f"{values}.TopK", axis=axis, largest=largest))
    return outputs


@rule(aten.select)
def _select(b: Builder, node: Node) -> str:
    return b.add("Gather", b.tensor(node.args[0]), b.tensor(node.args[2], torch.int64), axis=node.args[1])


@rule(aten.cat)
def _cat(b: Builder, node: Node) -> str:
    return b.add("Concat", *(b.tensor(part, dtype_of(node)) for part in node.args[0]), axis=argument(node, 1, "dim", 0))


@rule(aten.split_with_sizes)
def _split(b: Builder, node: Node) -> list[str]:
    source, axis, parts, start = node.args[0], argument(node, 2, "dim", 0), [], 0
    for size in node.args[1]:
        parts.append(b.add("Slice", b.tensor(source), b.ints([start]), b.ints([start + size]), b.ints([axis])))
        start += size
    return parts


@rule(operator.getitem)
def _item(b: Builder, node: Node) -> str:
    source, position = node.args
    return b.names[source][position]


# New tensors and indexing


@rule(aten.full)
def _full(b: Builder, node: Node) -> str:
    value = b.tensor(node.args[1], dtype_of(node))
    return b.add("Expand", value, b.ints(node.args[0])) if node.args[0] else value


@rule(aten.full_like)
def _full_like(b: Builder, node: Node) -> str:
    value = b.tensor(node.args[1], dtype_of(node))
    return b.add("Expand", value, b.shape(node.args[0])) if rank(node) else value


@rule(aten.scalar_tensor)
def _scalar(b: Builder, node: Node) -> str:
    return b.tensor(node.args[0], dtype_of(node))


@rule(aten.arange)
def _arange(b: Builder, node: Node) -> str:
    start, end = node.args[:2] if len(node.args) > 1 else (0, node.args[0])
    counted = dtype_of(node) if dtype_of(node).is_floating_point else torch.int64  # ONNX counts in few types
    name = b.add("Range", *(b.tensor(value, counted) for value in (start, end, argument(node, 2, "step", 1))))
    return name if counted == dtype_of(node) else b.add("Cast", name, to=onnx_type(dtype_of(node)))


@rule(aten.gather)
def _gather(b: Builder, node: Node) -> str:
    source, axis, index = node.args[:3]
    return b.add("GatherElements", b.tensor(source), b.tensor(index), axis=axis)


@rule(aten.index_select)
def _index_select(b: Builder, node: Node) -> str:
    source, axis, index = node.args
    return b.add("Gather", b.tensor(source), b.tensor(index), axis=axis)


@rule(aten.scatter, aten.scatter_add)
def _scatter(b: Builder, node: Node) -> str:
    source, axis, index, update = node.args
    value = b.tensor(update, dtype_of(node))
    if not isinstance(update, fx.Node):
        value = b.add("Expand", value, b.shape(index))
    adds = {"reduction": "add"} if node.target.overloadpacket is aten.scatter_add else {}
    return b.add("ScatterElements", b.tensor(source), b.tensor(index), value, axis=axis, **adds)
