"""Spaces of cells: one small graph, repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from edgemeta.space.ops import Tape
from edgemeta.space.space import Segment, Space
from edgemeta.types import Shape, text_of

Edge = tuple[int, int]  # from node, to node

# NAS-Bench-201 (Dong 2020, arXiv:2001.00326): a cell of four nodes and six edges, 15 times, at 32x32.
CELL_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
CELL_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
CIFAR: Shape = (3, 32, 32)
_CELLS_PER_STAGE = 5


def nb201() -> Space:
    """15,625 cells; `picks` are the operators of the edges in the order of the benchmark's architecture string.

    All edges are there, whatever they hold: what a runtime leaves out is the affair of the device that was timed.
    """
    return _nb201("nb201", CIFAR, whole=True)


def trainable_nb201(in_shape: Shape = CIFAR) -> Space:
    """The same networks to be built: without the edges that carry nothing, and what only such edges read.

    A cell whose entry reaches its end by no edge passes it on: nothing could be learned behind it.
    """
    return _nb201(f"nb201-{text_of(in_shape)}", in_shape, whole=False)


def _nb201(name: str, in_shape: Shape, *, whole: bool) -> Space:
    slots = tuple((f"edge{a}-{b}", CELL_OPS) for a, b in CELL_EDGES)
    return Space(name, in_shape, (Segment(slots, partial(_lay_nb201, whole)),))


def _lay_nb201(whole: bool, tape: Tape, names: Sequence[str]) -> None:
    edges = list(zip(CELL_EDGES, names, strict=True))
    edges = edges if whole else _useful(edges)
    walk_nb201(tape, lambda: lay_nb201_cell(tape, edges, whole=whole))


def walk_nb201(
    tape: Tape, cell: Callable[[], None], *, width: int = 16, per_stage: int = _CELLS_PER_STAGE, stride: int = 1
) -> None:
    """Three stages of cells, of one width, twice and four times that; `cell` lays one."""
    tape.conv(width, 3, stride=stride)
    for times in (1, 2, 4):
        if times > 1:
            _lay_reduction(tape, times * width)
        for _ in range(per_stage):
            cell()


def _lay_reduction(tape: Tape, width: int) -> None:
    entry, (_, h, w) = tape.last, tape.shape(tape.last)
    tape.conv(width, 3, stride=2, act="relu")
    main = tape.conv(width, 3)
    if h % 2 or w % 2:  # the pool would leave less than the convolution
        tape.conv(width, 1, stride=2, at=entry)
    else:
        tape.avgpool(2, stride=2, at=entry)
        tape.conv(width, 1)
    tape.add(main)


def lay_nb201_cell(tape: Tape, edges: Sequence[tuple[Edge, str]], *, whole: bool = False) -> None:
    """Each node is the sum of its edges."""
    nodes = {0: tape.last}
    for (source, target), name in edges:
        value = _lay_nb201_edge(tape, name, nodes[source], whole)
        nodes[target] = tape.add(nodes[target], at=value) if target in nodes else value


def _lay_nb201_edge(tape: Tape, name: str, at: int, whole: bool) -> int:
    width = tape.shape(at)[0]
    if name == "nor_conv_1x1":
        return tape.conv(width, 1, act="relu", at=at)
    if name == "nor_conv_3x3":
        return tape.conv(width, 3, act="relu", at=at)
    if name == "avg_pool_3x3":
        return tape.avgpool(3, at=at)
    if whole:
        return tape.skip(at=at) if name == "skip_connect" else tape.zero(at=at)
    return at


def _useful(edges: Sequence[tuple[Edge, str]]) -> list[tuple[Edge, str]]:
    """The edges by which something comes from the cell's entry to its end."""
    carrying = [(edge, name) for edge, name in edges if name != "none"]
    reached, needed = {0}, {3}
    for (source, target), _ in carrying:  # in the order of their targets, so sources are known
        if source in reached:
            reached.add(target)
    for (source, target), _ in reversed(carrying):
        if target in needed:
            needed.add(source)
    return [(edge, name) for edge, name in carrying if edge[0] in reached and edge[1] in needed]


# DARTS (Liu 2019, arXiv:1806.09055): two cells, one that keeps the resolution and one that halves it, of four nodes.
DARTS_OPS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
CELLS = ("normal", "reduction")
ENTRIES, NODES = 2, 4  # a cell reads the two cells before it
DARTS_WIDTH, DARTS_CELLS = 8, 5


def darts(in_shape: Shape = (1, 28, 28), *, width: int = DARTS_WIDTH, cells: int = DARTS_CELLS) -> Space:
    """The cell space: each node adds two of what stands before it, each through one of eight operators.

    Two of the cells, a third and two thirds of the way, halve the resolution and double the width. Departures, for
    networks of a tenth of a millisecond: a convolution is followed by its batch norm and ReLU, a depthwise one by
    neither, as in `ops.separable`; a node to which both operators bring nothing passes the previous cell on.
    """
    slots: list[tuple[str, tuple[Any, ...]]] = []
    for cell in CELLS:
        for node in range(ENTRIES, ENTRIES + NODES):
            for way in (1, 2):
                slots.append((f"{cell}{node}.input{way}", tuple(range(node))))
                slots.append((f"{cell}{node}.op{way}", DARTS_OPS))
    usual = (width, cells) == (DARTS_WIDTH, DARTS_CELLS)
    name = "darts" if usual else f"darts.{width}wide.{cells}cells"  # spaces of one name are one space
    lay = partial(_lay_darts, width, cells)
    return Space(f"{name}-{text_of(in_shape)}", in_shape, (Segment(tuple(slots), lay),))


def _lay_darts(width: int, cells: int, tape: Tape, picked: Sequence[Any]) -> None:
    half = len(picked) // 2
    edges = darts_edges(picked[:half]), darts_edges(picked[half:])
    walk_darts(tape, lambda at: lay_darts_cell(tape, edges[at.reduces], at), width=width, cells=cells)
    tape.forget_unread()


class Cell(NamedTuple):
    """Where a cell of DARTS is laid."""

    reduces: bool  # halves the resolution
    entries: tuple[int, int]  # positions of the two cells before it
    width: int


def walk_darts(tape: Tape, cell: Callable[[Cell], None], *, width: int, cells: int, stride: int = 1) -> None:
    """The stem and a row of cells; `cell` lays one, and its newest result is what the next ones read."""
    tape.conv(3 * width, 3, stride=stride, act="relu")
    before = last = tape.last
    for number in range(cells):
        reduces = number in (cells // 3, 2 * cells // 3) and tape.halves
        width *= 1 + reduces
        cell(Cell(reduces, (before, last), width))
        before, last = last, tape.last


def darts_edges(picked: Sequence[Any]) -> list[tuple[Edge, str]]:
    """((from, to), operator) of one cell, without those that bring nothing."""
    edges = []
    for node in range(NODES):
        a, first, b, second = picked[4 * node : 4 * node + 4]
        own = [((source, ENTRIES + node), name) for source, name in ((a, first), (b, second)) if name != "none"]
        edges += own or [((1, ENTRIES + node), "skip_connect")]
    return edges


def lay_darts_cell(tape: Tape, edges: Sequence[tuple[Edge, str]], cell: Cell) -> None:
    """Entries at the cell's width, then its nodes; where it halves the resolution, edges from entries do."""
    size = tape.shape(cell.entries[1])[1:]
    nodes: dict[int, int] = {}
    for number in sorted({source for (source, _), _ in edges if source < ENTRIES}):
        larger = tape.shape(cell.entries[number])[1:] != size
        nodes[number] = tape.conv(cell.width, 1, stride=1 + larger, act="relu", at=cell.entries[number])
    for (source, target), name in edges:
        value = _lay_darts_edge(tape, name, nodes[source], 1 + cell.reduces if source < ENTRIES else 1)
        nodes[target] = tape.add(nodes[target], at=value) if target in nodes else value
    tape.concat([nodes[number] for number in range(ENTRIES, ENTRIES + NODES)])


def _lay_darts_edge(tape: Tape, name: str, at: int, stride: int) -> int:
    width = tape.shape(at)[0]
    if name == "skip_connect":
        return at if stride == 1 else tape.conv(width, 1, stride=stride, act="relu", at=at)
    kind, kernel = name[:3], int(name[-1])
    if kind == "max":
        return tape.maxpool(kernel, stride=stride, at=at)
    if kind == "avg":
        return tape.avgpool(kernel, stride=stride, at=at)
    if kind == "dil":
        tape.depthwise(kernel, stride=stride, dilation=2, at=at)
        return tape.conv(width, 1, act="relu")
    tape.depthwise(kernel, stride=stride, at=at)
    tape.conv(width, 1, act="relu")
    tape.depthwise(kernel)
    return tape.conv(width, 1, act="relu")
