"""Systems of linear equations in ONNX, which has no operator for them."""

from __future__ import annotations

import operator

import torch
from onnx import GraphProto, TensorProto, helper
from torch import Tensor

from edgemeta.errors import BadBundle
from edgemeta.lowering.graph import Builder, onnx_type
from edgemeta.lowering.rules import Node, dtype_of, rule
from edgemeta.lowering.rules_shapes import LAST

aten = torch.ops.aten


@torch.library.custom_op("edgemeta::solve_factored", mutates_args=())
def solve_factored(right: Tensor, factor: Tensor) -> Tensor:
    """torch.cholesky_solve, which cannot be recorded for any number of columns."""
    return torch.cholesky_solve(right, factor)


@solve_factored.register_fake
def _(right: Tensor, factor: Tensor) -> Tensor:
    return torch.empty_like(right)


def solve(right: Tensor, factor: Tensor, upper: bool = False) -> Tensor:
    if upper:
        raise BadBundle("no ONNX for cholesky_solve with an upper factor; take the lower one")
    return solve_factored(right, factor)


@rule(aten.linalg_cholesky_ex)
def _factor(b: Builder, node: Node) -> list[str]:
    """The matrix itself: its factor is only ever solved with, which takes the matrix as well."""
    for user in node.users:
        solved = all(taker.target is torch.ops.edgemeta.solve_factored.default for taker in user.users)
        if user.target is not operator.getitem or user.args[1] != 0 or not solved:
            raise BadBundle("no ONNX for a Cholesky factor but in cholesky_solve; use it there alone")
    return [b.tensor(node.args[0])]


@rule(torch.ops.edgemeta.solve_factored)
def _solve(b: Builder, node: Node) -> str:
    """Gauss-Jordan elimination, a row at a time: of a positive definite matrix no pivot is 0.

    In a Loop, or where all sizes are fixed one row after another, for runtimes without loops.
    """
    right, factor = node.args
    size = factor.meta["val"].shape[0]
    both = b.add("Concat", b.tensor(factor), b.tensor(right), axis=1)
    rows = b.constant([[i] for i in range(size)], torch.int64)
    if isinstance(right.meta["val"].shape[1], int):
        solved = both
        for row in range(size):
            solved = _eliminate(b, solved, b.ints([row]), rows)
    else:
        body = _loop_body(Builder(f"{both}.row", b.constants), size, rows, onnx_type(dtype_of(node)))
        solved = b.add("Loop", b.constant(size, torch.int64), "", both, body=body)
    return b.add("Slice", solved, b.ints([size]), b.ints([LAST]), b.ints([1]))


def _eliminate(b: Builder, matrix: str, at: str, rows: str, output: str | None = None) -> str:
    """The matrix with row `at` divided by its pivot and taken from all others, so often that they are 0 there."""
    row, column = (b.add("Gather", matrix, at, axis=axis) for axis in (0, 1))
    row = b.add("Div", row, b.add("Gather", row, at, axis=1))
    others = b.add("Sub", matrix, b.add("Mul", column, row))
    return b.add("Where", b.add("Equal", rows, at), row, others, output=output)


def _loop_body(inner: Builder, size: int, rows: str, kind: int) -> GraphProto:
    name = inner.prefix
    at = inner.add("Reshape", f"{name}.at", inner.ints([1]))
    _eliminate(inner, f"{name}.in", at, rows, output=f"{name}.out")
    inner.add("Identity", f"{name}.go", output=f"{name}.goes_on")
    matrix = [helper.make_tensor_value_info(f"{name}.{side}", kind, [size, None]) for side in ("in", "out")]
    counter = helper.make_tensor_value_info(f"{name}.at", TensorProto.INT64, [])
    go, on = (helper.make_tensor_value_info(f"{name}.{end}", TensorProto.BOOL, []) for end in ("go", "goes_on"))
    return helper.make_graph(inner.nodes, name, [counter, go, matrix[0]], [on, matrix[1]])
