"""How each torch operator is written in ONNX. An operator without a rule is an error, never a guess.

Here are the registry and what works element by element, products, sums and softmax; `rules_shapes`, `rules_images` and
`algebra` have the others.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx

from edgemeta.errors import BadBundle
from edgemeta.lowering.graph import Builder

aten = torch.ops.aten
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


def write(b: Builder, nodes: Iterable[Node]) -> None:
    """The operators among traced nodes, in order. Placeholders are named by the caller."""
    for node in nodes:
        if node.op == "call_function":
            b.names[node] = rule_for(node)(b, node)
        elif node.op == "get_attr":
            raise BadBundle(
                f"a learner holds a tensor literal ({node.target}); build it with torch.full or keep it in slow"
            )
