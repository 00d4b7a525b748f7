"""How each torch operator is written in ONNX. An operator without a rule is an error, never a guess."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from onnx import helper
from torch import fx

from edgemeta.errors import BadBundle
from edgemeta.lowering.graph import Builder, onnx_type

aten = torch.ops.aten
LAST = torch.iinfo(torch.int64).max  # torch's "to the end" of a slice
Node = Any  # a torch.fx.Node: what its arguments are is known to each rule alone
Rule = Callable[[Builder, Node], Any]  # the name of the result, or a list of names
RULES: dict[Any, Rule] = {}


def rule_for(node: Node) -> Rule:
    """The rule of an operator's overload, or of all its overloads."""
    for target in (node.target, getattr(node.target, "overloadpacket", None)):
        if target in RULES:
            return RULES[target]
    raise BadBundle(
        f"no ONNX for {node.target}; write it with other operators or add a rule to edgemeta/lowering/rules.py"
    )


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        return function

    return register


def argument(node: Node, position: int, name: str, default: Any = None) -> Any:
    """An argument that may have been given by position, by name or not at all."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def dtype_of(value: Any) -> torch.dtype:
    """What torch computes with when it meets a tensor, a size or a number."""
    value = value.meta["val"] if isinstance(value, fx.Node) else value
    return (
        value.dtype if isinstance(value, torch.Tensor) else torch.result_type(torch.zeros(0, dtype=torch.bool), value)
    )


def rank(node: Node) -> int:
    return node.meta["val"].dim()


def axes(node: Node, dims: Any) -> list[int]:
    """Non-negative axes; none at all stands for every axis."""
    dims = range(rank(node)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    return [d % max(rank(node), 1) for d in dims]


# Element by element

UNARY = {
    "Neg": aten.neg,
    "Exp": aten.exp,
    "Log": aten.log,
    "Sqrt": aten.sqrt,
    "Abs": aten.abs,
    "Sigmoid": aten.sigmoid,
    "Tanh": aten.tanh,
    "Relu": aten.relu,
    "Erf": aten.erf,
    "Sin": aten.sin,
    "Cos": aten.cos,
    "Sign": aten.sign,
    "Floor": aten.floor,
    "Reciprocal": aten.reciprocal,
    "Not": aten.logical_not,
    "Identity": aten.clone,
}
BINARY = {
    "Add": aten.add,
    "Sub": aten.sub,
    "Mul": aten.mul,
    "Div": aten.div,
    "Pow": aten.pow,
    "Max": aten.maximum,
    "Min": aten.minimum,
}
COMPARE = {"Equal": aten.eq, "Less": aten.lt, "Greater": aten.gt, "LessOrEqual": aten.le, "GreaterOrEqual": aten.ge}
LOGIC = {"And": (aten.logical_and, aten.bitwise_and), "Or": (aten.logical_or, aten.bitwise_or)}
SIZES = {"Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": operator.floordiv}


def _unary(kind: str) -> Rule:
    return lambda b, node: b.add(kind, b.tensor(node.args[0], dtype_of(node)))


def _binary(kind: str) -> Rule:
    """Both sides in the type of the result: ONNX promotes nothing."""

    def write(b: Builder, node: Node) -> str:
        if node.kwargs.get("rounding_mode") is not None:
            raise BadBundle(f"no ONNX for {node.target} that rounds; divide, then floor")
        left, right = (b.tensor(value, dtype_of(node)) for value in node.args[:2])
        alpha = node.kwargs.get("alpha", 1)
        return b.add(kind, left, right if alpha == 1 else b.add("Mul", right, b.constant(alpha, dtype_of(node))))

    return write


def _compare(kind: str) -> Rule:
    def write(b: Builder, node: Node) -> str:
        values = [v.meta["val"] if isinstance(v, fx.Node) else v for v in node.args[:2]]
        common = torch.result_type(*values)
        return b.add(kind, *(b.tensor(value, common) for value in node.args[:2]))

    return write


def _logic(kind: str) -> Rule:
    return lambda b, node: b.add(kind, *(b.tensor(value, torch.bool) for value in node.args[:2]))


def _size_arithmetic(kind: str) -> Rule:
    return lambda b, node: b.add(kind, *(b.size(value) for value in node.args))


RULES.update({target: _unary(kind) for kind, target in UNARY.items()})
RULES[aten.relu_] = RULES[aten.relu]  # nothing reads what was there before
RULES.update({target: _binary(kind) for kind, target in BINARY.items()})
RULES.update({target: _compare(kind) for kind, target in COMPARE.items()})
RULES.update({target: _logic(kind) for kind, targets in LOGIC.items() for target in targets})
RULES.update({target: _size_arithmetic(kind) for kind, target in SIZES.items()})


@rule(aten.rsqrt)
def _rsqrt(b: Builder, node: Node) -> str:
    return b.add("Reciprocal", b.add("Sqrt", b.tensor(node.args[0])))


@rule(aten.ne)
def _not_equal(b: Builder, node: Node) -> str:
    return b.add("Not", RULES[aten.eq](b, node))


@rule(aten.clamp, aten.clamp_min)
def _clamp(b: Builder, node: Node) -> str:
    name, dtype = b.tensor(node.args[0], dtype_of(node)), dtype_of(node)
    for kind, bound in (("Max", argument(node, 1, "min")), ("Min", argument(node, 2, "max"))):
        name = name if bound is None else b.add(kind, name, b.tensor(bound, dtype))
    return name


@rule(aten.where)
def _where(b: Builder, node: Node) -> str:
    condition, chosen, other = node.args
    return b.add("Where", b.tensor(condition), b.tensor(chosen, dtype_of(node)), b.tensor(other, dtype_of(node)))


@rule(aten._to_copy, aten.alias, aten.detach, aten.lift_fresh_copy)
def _copy(b: Builder, node: Node) -> str:
    return b.tensor(node.args[0], dtype_of(node))


# Products, sums, softmax


@rule(aten.mm, aten.bmm)
def _product(b: Builder, node: Node) -> str:
    return b.add("MatMul", *map(b.tensor, node.args))


@rule(aten.addmm)
def _affine(b: Builder, node: Node) -> str:
    bias, left, right = map(b.tensor, node.args)
    alpha, beta = (float(node.kwargs.get(name, 1)) for name in ("alpha", "beta"))
    return b.add("Gemm", left, right, bias, alpha=alpha, beta=beta)


@rule(aten._log_softmax)
def _log_softmax(b: Builder, node: Node) -> str:
    return b.add("LogSoftmax", b.tensor(node.args[0]), axis=node.args[1])


@rule(aten._softmax)
def _softmax(b: Builder, node: Node) -> str:
    return b.add("Softmax", b.tensor(node.args[0]), axis=node.args[1])


@rule(aten.sum)
def _sum(b: Builder, node: Node) -> str:
    source, keep = node.args[0], argument(node, 2, "keepdim", False)
    over = axes(source, argument(node, 1, "dim"))
    name = b.tensor(source, dtype_of(node))
    return b.add("ReduceSum", name, b.ints(over), keepdims=int(keep)) if over else name


def _reduce(kind: str) -> Rule:
    def write(b: Builder, node: Node) -> str:
        source, keep = node.args[0], argument(node, 2, "keepdim", False)
        over = axes(source, argument(node, 1, "dim"))
        name = b.tensor(source, dtype_of(node))
        return b.add(kind, name, axes=over, keepdims=int(keep)) if over else name

    return write


REDUCE = {"ReduceMean": aten.mean, "ReduceMax": aten.amax, "ReduceMin": aten.amin}
RULES.update({target: _reduce(kind) for kind, target in REDUCE.items()})


@rule(aten.argmax)
def _argmax(b: Builder, node: Node) -> str:
    keep = argument(node, 2, "keepdim", False)
    if argument(node, 1, "dim") is None:
        raise BadBundle("no ONNX for argmax over a whole tensor; name the dimension")
    return b.add("ArgMax", b.tensor(node.args[0]), axis=argument(node, 1, "dim"), keepdims=int(keep))


# Shapes


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


def write(b: Builder, nodes: Iterable[Node]) -> None:
    """The operators among traced nodes, in order. Placeholders are named by the caller."""
    for node in nodes:
        if node.op == "call_function":
            b.names[node] = rule_for(node)(b, node)
        elif node.op == "get_attr":
            raise BadBundle(
                f"a learner holds a tensor literal ({node.target}); build it with torch.full or keep it in slow"
            )
