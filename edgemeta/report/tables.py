"""Aligned plain-text tables for terminals and markdown files."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

UNITS = {
    "ms": "ms",
    "us": "µs",
    "kib": "KiB",
    "mib": "MiB",
    "bytes": "bytes",
    "s": "s",
    "seconds": "s",
    "percent": "%",
    "pct": "%",
    "mj": "mJ",
    "mhz": "MHz",
}
SIGNIFICANT = 4  # digits of a column's largest number
NARROWEST = 6  # a text column is never squeezed below this many cells
GAP = "  "


class Column(NamedTuple):
    """One column: the key of its values, its heading (made from the key if empty), a format such as ".1f"."""

    key: str
    heading: str = ""
    format: str = ""


def table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str | Column] | None = None,
    *,
    width: int | None = None,
    markdown: bool = False,
) -> str:
    """Rows as text: numbers to the right, None as "-", units in headings (`latency_ms` -> "latency [ms]").

    `columns` defaults to every key in order of appearance. `width` is in terminal cells: text is cut with an
    ellipsis to keep within it, numbers never are. Markdown ignores `width`.
    """
    chosen = [c if isinstance(c, Column) else Column(c) for c in columns or _keys(rows)]
    if not chosen:
        return "(empty)"
    values = [[row.get(column.key) for row in rows] for column in chosen]
    right = [_numeric(column) for column in values]
    cells = [[c.heading or heading(c.key), *_texts(v, c.format)] for c, v in zip(chosen, values, strict=True)]
    if markdown:
        return _markdown(cells, right)
    sizes = _squeeze([max(map(cell_width, column)) for column in cells], right, width)
    lines = [_line(row, sizes, right) for row in zip(*cells, strict=True)]
    return "\n".join([lines[0], GAP.join("-" * size for size in sizes), *lines[1:]])


def heading(key: str) -> str:
    """`latency_ms` -> "latency [ms]"; a key without a known unit keeps its words."""
    words, _, unit = key.rpartition("_")
    if unit in UNITS:
        return f"{words.replace('_', ' ') or 'time'} [{UNITS[unit]}]"
    return key.replace("_", " ")


def cell_width(text: str) -> int:
    """Terminal cells `text` takes: two for East Asian wide characters, none for combining marks."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _numeric(values: Sequence[Any]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(map(_is_number, present))


def _texts(values: Sequence[Any], spec: str) -> list[str]:
    floats = [abs(v) for v in values if isinstance(v, float) and math.isfinite(v)]
    largest = max(floats, default=0.0)
    before = math.floor(math.log10(largest)) + 1 if largest > 0 else 1
    decimals = min(max(SIGNIFICANT - max(before, 0), 0), 6)
    return [_text(value, spec or f".{decimals}f") for value in values]


def _text(value: Any, spec: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return format(value, spec)
    return "".join(c if c.isprintable() else " " for c in str(value))


def _squeeze(sizes: list[int], right: Sequence[bool], width: int | None) -> list[int]:
    """Takes cells from the widest text column, one at a time, until the line fits."""
    sizes = list(sizes)
    while width is not None and sum(sizes) + len(GAP) * (len(sizes) - 1) > width:
        text = [i for i, size in enumerate(sizes) if not right[i] and size > NARROWEST]
        if not text:
            break
        sizes[max(text, key=sizes.__getitem__)] -= 1
    return sizes


def _cut(text: str, size: int) -> str:
    if cell_width(text) <= size:
        return text
    while text and cell_width(text) > size - 1:
        text = text[:-1]
    return text + "…"


def _line(row: Sequence[str], sizes: Sequence[int], right: Sequence[bool]) -> str:
    padded = []
    for text, size, to_right in zip(row, sizes, right, strict=True):
        text = _cut(text, size)
        space = " " * (size - cell_width(text))
        padded.append(space + text if to_right else text + space)
    return GAP.join(padded).rstrip()


def _markdown(cells: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    rows = [[text.replace("\\", "\\\\").replace("|", "\\|") for text in row] for row in zip(*cells, strict=True)]
    rows.insert(1, ["---:" if to_right else "---" for to_right in right])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
