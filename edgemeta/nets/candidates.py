"""The cells that can be relaxed: laid by the space's own walks, with every candidate on every edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from edgemeta.errors import BadConfig
from edgemeta.space import cells
from edgemeta.space.cells import Edge
from edgemeta.space.ops import Tape
from edgemeta.space.space import Space
from edgemeta.types import Shape

Use = tuple[str, int, int]  # cell, row (edge) and column (operator)
Weighed = dict[int, tuple[Use, Use | None]]  # position of an addition -> what weighs its inputs
SKIP, NONE = "skip_connect", "none"


@dataclass(frozen=True)
class Kind:
    """What a relaxation must know of a space beside its own walk over a cell."""

    cells: tuple[str, ...]
    edges: tuple[Edge, ...]  # of each cell, by target
    operators: tuple[str, ...]
    inputs: int | None  # edges that a node keeps; None: all
    width: int  # of the relaxation, unless told
    depth: int  # its cells, unless told
    least_depth: int  # that lays a cell of each kind
    stride: int  # of the stem, unless told
    lay: Callable[[Kind, Tape, int, int, int], Weighed]  # tape, width, depth, stride
    none: bool = False  # whether an edge can be derived that brings nothing

    @property
    def strong(self) -> list[int]:
        """Columns of the operators that can be derived."""
        return [j for j, name in enumerate(self.operators) if self.none or name != NONE]


def by_target(edges: Sequence[Edge]) -> list[list[int]]:
    """Rows of the edges into each node."""
    return [[row for row, (_, to) in enumerate(edges) if to == target] for target in sorted({to for _, to in edges})]


def kind_of(space: Space) -> Kind:
    for name, kind in KINDS.items():
        if space.slots == _SLOTS[name]:
            return kind
    raise BadConfig(f"{space.name} has no cells to be relaxed; search {' or '.join(KINDS)}, or without gradients")


def _candidates(kind: Kind, cell: str) -> list[tuple[Use, tuple[Edge, str]]]:
    """Every operator on every edge, but those that bring nothing."""
    return [
        ((cell, row, column), (edge, name))
        for row, edge in enumerate(kind.edges)
        for column, name in enumerate(kind.operators)
        if name != NONE
    ]


def _weighed(kind: Kind, cell: str, tape: Tape, lay: Callable[[list[tuple[Edge, str]]], object]) -> Weighed:
    """Lay a cell with all candidates as if each were picked; of the additions of its nodes, what weighs their inputs.

    The first addition of a node takes its second candidate and its first one.
    """
    pairs, before = _candidates(kind, cell), tape.last
    lay([candidate for _, candidate in pairs])
    additions = iter([i for i in range(before + 1, tape.last + 1) if tape.ops[i].kind == "add"])
    found: Weighed = {}
    for rows in by_target(kind.edges):
        uses = [use for use, _ in pairs if use[1] in rows]
        found[next(additions)] = uses[1], uses[0]
        found.update({next(additions): (use, None) for use in uses[2:]})
    return found


def _lay_darts(kind: Kind, tape: Tape, width: int, depth: int, stride: int) -> Weighed:
    weighed: Weighed = {}

    def cell(at: cells.Cell) -> None:
        lay = partial(cells.lay_darts_cell, tape, cell=at)
        weighed.update(_weighed(kind, kind.cells[at.reduces], tape, lay))

    cells.walk_darts(tape, cell, width=width, cells=depth, stride=stride)
    return weighed


def _lay_nb201(kind: Kind, tape: Tape, width: int, depth: int, stride: int) -> Weighed:
    weighed: Weighed = {}

    def cell() -> None:
        weighed.update(_weighed(kind, kind.cells[0], tape, partial(cells.lay_nb201_cell, tape)))

    cells.walk_nb201(tape, cell, width=width, per_stage=depth, stride=stride)
    return weighed


_DARTS_EDGES = tuple(
    (source, target) for target in range(cells.ENTRIES, cells.ENTRIES + cells.NODES) for source in range(target)
)
KINDS: Mapping[str, Kind] = {
    "darts": Kind(cells.CELLS, _DARTS_EDGES, cells.DARTS_OPS, 2, 4, 3, 3, 2, _lay_darts),
    "nb201": Kind(("cell",), cells.CELL_EDGES, cells.CELL_OPS, None, 8, 1, 1, 1, _lay_nb201),
}
_SHAPE: Shape = (1, 28, 28)
_SLOTS = {"darts": cells.darts(_SHAPE).slots, "nb201": cells.trainable_nb201(_SHAPE).slots}
