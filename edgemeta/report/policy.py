"""What the meta-learned searcher decides: for each of a few decisions, its options against the budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from edgemeta.report.plots import milliseconds
from edgemeta.report.story import Policy
from edgemeta.report.svg import CHAR_PX, canvas, join, tag, text

SHOWN = 6  # decisions drawn: those that the budget changes most
CELL, BARS, GAP = 150, 96, 18  # px: least width of a decision, height of its bars, room between decisions
HEAD, FOOT = 22, 20  # px above and below the bars
READABLE = 15  # px: the least height of a bar that is labelled


class Decision(NamedTuple):
    """One decision, drawn."""

    name: str
    options: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...]  # of each budget, of each option


def strongest(policy: Policy) -> list[Decision]:
    """The decisions that change most with the budget, in the order of the network."""
    starts = [0]
    for _, options in policy.decisions:
        starts.append(starts[-1] + len(options))
    most = sorted(range(len(policy.decisions)), key=lambda at: -policy.changes["budget"][at])[:SHOWN]
    return [
        Decision(*policy.decisions[at], tuple(tuple(row[starts[at] : starts[at + 1]]) for row in policy.probability))
        for at in sorted(most)
    ]


def bars(policy: Policy, *, width: int) -> Markup:
    """A stack of options for each budget, tight to loose, for each decision."""
    shown = strongest(policy)
    columns = max(1, min(3, width // (CELL + GAP)))
    cell, height = (width - GAP * (columns - 1)) / columns, HEAD + BARS + FOOT + GAP
    parts = []
    for at, decision in enumerate(shown):
        left, top = at % columns * (cell + GAP), at // columns * height
        parts.append(_decision(decision, policy.budgets_ms, left, top, cell))
    rows = -(-len(shown) // columns)
    return canvas(
        width, rows * height, f"Options of {len(shown)} decisions at {len(policy.budgets_ms)} budgets", *parts
    )


def _decision(decision: Decision, budgets_ms: Sequence[float], left: float, top: float, cell: float) -> Markup:
    step = cell / len(budgets_ms)
    parts = [text(left, top + 13, decision.name, class_="mark")]
    for at, (budget_ms, shares) in enumerate(zip(budgets_ms, decision.shares, strict=True)):
        parts.append(_stack(decision, shares, budget_ms, left + at * step, top + HEAD, step - 3))
    first, last = milliseconds(budgets_ms[0]), milliseconds(budgets_ms[-1])
    below = top + HEAD + BARS + 14
    parts += [text(left, below, first), text(left + cell, below, last, anchor="end")]
    return join(parts)


def _stack(
    decision: Decision, shares: Sequence[float], budget_ms: float, left: float, top: float, wide: float
) -> Markup:
    parts, up = [], top + BARS
    for at, (option, share) in enumerate(zip(decision.options, shares, strict=True)):
        high = BARS * share
        up -= high
        tip = f"{decision.name} = {option}\n{100 * share:.0f} % at {milliseconds(budget_ms)}"
        place = {"x": float(left), "y": float(up), "width": float(wide), "height": float(max(high - 1, 0.5))}
        parts.append(tag("rect", **place, class_=f"option o{at % 6}", data_tip=tip))
        if high >= READABLE and CHAR_PX * len(option) < wide:
            parts.append(text(left + wide / 2, up + high / 2 + 4, option, anchor="middle", class_="option-name"))
    return join(parts)
