"""What an operator's latency may follow: physical terms, and a map on which operators that are alike lie close."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgemeta.types import KIB, Op

LANES = 16  # channels a vector unit works on at once; runtimes pad to it
TERMS = 7
KNOTS_KIB = (128, 256, 512, 1024, 1536, 2048)  # sizes around which caches end
_FEW_CHANNELS = 4  # an image, not a feature map: runtimes read it with another kernel


def family(op: Op) -> str:
    """Operators that share a kernel implementation, so that one may tell of another.

    >>> [family(Op("conv", (8, 7, 7), (8, 7, 7), kernel, groups=groups)) for kernel, groups in ((1, 1), (3, 1), (3, 8))]
    ['pointwise', 'dense', 'depthwise']
    """
    if op.kind != "conv":
        return op.kind
    if op.groups > 1:
        return "depthwise"
    if op.in_shape[0] < _FEW_CHANNELS:
        return "first"
    return "pointwise" if op.kernel == 1 else "dense"


def _padded(channels: int) -> int:
    return -(-channels // LANES) * LANES if channels >= _FEW_CHANNELS else channels


def terms(op: Op) -> list[float]:
    """(TERMS,) launches, MACs padded to vector lanes, MACs, bytes, weights, elements off the lanes, vectors out."""
    (c_in, h_in, w_in), (c_out, h, w) = op.in_shape, op.out_shape
    taps = math.prod(op.window) * (1 if op.groups > 1 else _padded(c_in)) * _padded(c_out) if op.kind == "conv" else 0
    uneven = [math.prod(shape) for shape in (op.in_shape, op.out_shape) if _padded(shape[0]) != shape[0]]
    moved = c_in * h_in * w_in + c_out * h * w
    return [
        1.0,
        taps * h * w / 1e6,
        op.macs / 1e6,
        moved / 1e4,
        taps / 1e4,
        sum(uneven) / 1e4,
        _padded(c_out) * h * w / 1e5,
    ]


def design(operators: Sequence[Op]) -> np.ndarray:
    """(operators, families * TERMS): each family has terms of its own."""
    families = sorted({family(op) for op in operators})
    out = np.zeros((len(operators), len(families) * TERMS))
    for row, op in zip(out, operators, strict=True):
        at = families.index(family(op)) * TERMS
        row[at : at + TERMS] = terms(op)
    return out


def beyond(ops: Sequence[Op]) -> list[float]:
    """(knots,) MiB by which the working set of a network passes each of `KNOTS_KIB`.

    Operators run slower in a network that does not stay in the caches from one run to the next: their latencies do
    not add up without this.
    """
    kib = working_set_kib(ops)
    return [max(0.0, kib - knot) / KIB for knot in KNOTS_KIB]


def working_set_kib(ops: Sequence[Op]) -> float:
    """All weights and activations of a network."""
    return sum(op.weight_bytes + op.act_bytes for op in ops) / KIB


def slope_name(knot_kib: int) -> str:
    """Under which a profile's overhead keeps the milliseconds per MiB beyond a knot."""
    return f"per_mib_beyond_{knot_kib}_kib_ms"


def place(op: Op) -> list[float]:
    """Coordinates in which a distance of 1 is a doubling of a width, or about as much of a change."""
    (c_in, h_in, _), (c_out, h, _) = op.in_shape, op.out_shape
    uneven = (_padded(c_in) != c_in) + (_padded(c_out) != c_out)
    geometry = [op.kernel / 2, op.stride, 0.5 * (op.act == "relu"), uneven, h_in % 2]
    return [math.log2(c_in), math.log2(c_out), math.log2(h), *map(float, geometry)]


def likeness(operators: Sequence[Op], length: float) -> np.ndarray:
    """(n, n) squared-exponential kernel over `place`, zero across families."""
    places = np.array([place(op) for op in operators])
    squares = (places**2).sum(1)
    distance = np.maximum(squares[:, None] + squares[None] - 2 * places @ places.T, 0)
    families = np.array([family(op) for op in operators])
    return np.exp(-distance / (2 * length**2)) * (families[:, None] == families[None])
