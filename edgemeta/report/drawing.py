"""The chosen architecture as a drawing: one panel per resolution, one box per operator, residual additions as arcs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from edgemeta.report.svg import canvas, join, points, tag, text
from edgemeta.types import Op

BOX, STEP, HEAD, ARC = 38, 46, 46, 24  # px: box height, box pitch, panel heading, room for arcs at the right
PANEL, GUTTER, PAD = 196, 26, 8  # px: narrowest panel, arrows between panels, space inside a panel


class Panel(NamedTuple):
    """Operators that read maps of one resolution, with their positions in the network."""

    title: str
    first: int
    ops: tuple[Op, ...]


def panels(ops: Sequence[Op]) -> list[Panel]:
    """Consecutive operators that read the same resolution; what halves it is the last of its panel.

    A lone global pool at the end joins the panel before: it would be a panel of nothing but itself.
    """
    found: list[Panel] = []
    for at, op in enumerate(ops):
        title = "{}×{}".format(*op.in_shape[1:])
        if found and found[-1].title == title:
            found[-1] = found[-1]._replace(ops=(*found[-1].ops, op))
        else:
            found.append(Panel(title, at, (op,)))
    if len(found) > 1 and [op.kind for op in found[-1].ops] == ["gap"]:
        *found, last = found
        found[-1] = found[-1]._replace(ops=found[-1].ops + last.ops)
    return found


def architecture(ops: Sequence[Op], *, width: int) -> Markup:
    """Panels side by side, wrapping where the width ends."""
    groups = panels(ops)
    columns = max(1, min(len(groups), (width + GUTTER) // (PANEL + GUTTER)))
    across = (width - GUTTER * (columns - 1)) / columns
    parts, top = [], 2.0
    for row in range(0, len(groups), columns):
        line = groups[row : row + columns]
        tall = max(HEAD + STEP * len(group.ops) + PAD for group in line)
        for at, group in enumerate(line):
            left = at * (across + GUTTER)
            own = HEAD + STEP * len(group.ops) + PAD if columns == 1 else tall
            parts.append(_panel(group, left, top, across, own))
            if at + 1 < len(line):
                parts.append(_arrow([(left + across + 3, top + 22), (left + across + GUTTER - 3, top + 22)]))
        if row + columns < len(groups):
            parts.append(_wrap((columns - 1) * (across + GUTTER) + across / 2, across / 2, top + tall))
        top += tall + GUTTER
    return canvas(width, top - GUTTER + 2, f"Drawing of the {len(ops)} operators of the architecture", *parts)


TITLES = {"add": "residual add", "gap": "global average pool", "concat": "concatenate", "shuffle": "channel shuffle"}


def kind(op: Op) -> str:
    """The word a reader knows an operator by, also its colour: conv, pointwise, depthwise, pool, add."""
    if op.kind != "conv":
        return {"maxpool": "pool", "avgpool": "pool", "gap": "pool", "concat": "add"}.get(op.kind, op.kind)
    if op.groups > 1:
        return "depthwise"
    return "pointwise" if op.kernel == 1 else "conv"


def title(op: Op) -> str:
    """One line: `depthwise 3×3 /2 + ReLU`."""
    if op.kind in TITLES:
        return TITLES[op.kind]
    name = {"maxpool": "max-pool", "avgpool": "average pool"}.get(op.kind, kind(op))
    seldom = (f" /{op.stride}" if op.stride > 1 else "") + (f" dilated {op.dilation}" if op.dilation > 1 else "")
    return f"{name} {'×'.join(map(str, op.window))}{seldom}" + (" + ReLU" if op.act == "relu" else "")


def count(number: float) -> str:
    """1,234,567 -> 1.23 M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:g}"


def detail(op: Op) -> str:
    shape = "×".join(map(str, op.out_shape))
    return shape + (f" · {count(op.macs)} MACs" if op.macs else "")


def label(op: Op) -> str:
    """An operator as one line of a list: `depthwise 3×3 /2 → 64×7×7`."""
    return f"{title(op)} → {'×'.join(map(str, op.out_shape))}"


def _panel(group: Panel, left: float, top: float, across: float, tall: float) -> Markup:
    macs = sum(op.macs for op in group.ops)
    parts = [
        tag("rect", x=left + 1, y=top, width=across - 2, height=tall, rx=10, class_="panel"),
        text(left + PAD + 2, top + 20, f"{group.title} maps", class_="mark"),
        text(left + PAD + 2, top + 36, f"{count(macs)} MACs", class_="tick"),
    ]
    room = ARC if any(len(op.inputs) > 1 for op in group.ops) else 0
    for at, op in enumerate(group.ops):
        parts.append(_box(op, left + PAD, top + HEAD + STEP * at, across - 2 * PAD - room))
    parts += _arcs(group, left + across - PAD - ARC, top + HEAD)
    return join(parts)


def _box(op: Op, left: float, top: float, across: float) -> Markup:
    tip = f"{title(op)}\n{'×'.join(map(str, op.in_shape))} → {detail(op)}\n{count(op.weight_bytes)}B of weights"
    parts = [
        tag("rect", x=left, y=top, width=across, height=BOX, rx=5, class_="box"),
        tag("rect", x=left, y=top, width=5, height=BOX, rx=2.5, class_=f"kind {kind(op)}"),
        text(left + 12, top + 16, title(op), class_="label"),
        text(left + 12, top + 31, detail(op), class_="small"),
    ]
    return tag("g", *parts, data_tip=tip)


def _arcs(group: Panel, right: float, top: float) -> list[Markup]:
    """From the producer to the addition, at the right of the boxes; from the panel's head where it stands before."""
    drawn = []
    for at, op in enumerate(group.ops):
        for source in op.inputs:
            start = source - group.first
            if len(op.inputs) < 2 or start == at - 1:
                continue
            begin = top + STEP * start + BOX / 2 if start >= 0 else top - 8
            end = top + STEP * at + BOX / 2
            path = f"M{right:.1f} {begin:.1f}h10q8 0 8 8V{end - 8:.1f}q0 8 -8 8h-8"
            drawn.append(tag("path", d=path, class_="skip"))
            tip = f"{right + 1:.1f},{end:.1f} {right + 8:.1f},{end - 4:.1f} {right + 8:.1f},{end + 4:.1f}"
            drawn.append(tag("polygon", points=tip, class_="tip"))
    return drawn


def _wrap(start: float, end: float, bottom: float) -> Markup:
    """From below the last panel of a row to above the first of the next."""
    middle = bottom + GUTTER / 2 - 2
    corners = [(start, bottom + 3), (start, middle), (end, middle)] if start != end else [(start, bottom + 3)]
    return _arrow([*corners, (end, bottom + GUTTER - 2)])


def _arrow(path: Sequence[tuple[float, float]]) -> Markup:
    """A line with its head at the last corner."""
    (x, y), before = path[-1], path[-2]
    wings = [(x - 8, y - 5), (x - 8, y + 5)] if before[1] == y else [(x - 5, y - 8), (x + 5, y - 8)]
    head = tag("polygon", points=points([(x, y), *wings]), class_="flowtip")
    return tag("polyline", points=points(path), class_="flow") + head
