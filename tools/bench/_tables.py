"""Every published table, from the JSON of the benchmarks: no number of a table is typed.

`TABLES` has a row for each: what it is drawn from, and the function that draws it. A page holds a table between
`<!-- NAME: begin -->` and `<!-- NAME: end -->`; `python tools/bench/all.py --stored` writes it there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from _grids import GRIDS
from _rows import NOTHING, Record, Row, Words, goals, grid, missed, table
from _summary import DEVICE, ENGLISH, GROWTH, README, RESULTS, ROBUST, SCALE
from _summary_zh import CHINESE, README_ZH

MARK = "<!-- {}: {} -->"
COMMANDS = "tools/bench/all.py --only"


class Table(NamedTuple):
    """A table and the benchmarks it is drawn from: of those, the ones there are come to `draw`."""

    needs: tuple[str, ...]
    draw: Callable[[Mapping[str, Record]], str]


def _of(rows: Sequence[Row], *, commands: bool = False) -> Table:
    needs = tuple(dict.fromkeys(row.bench for row in rows))
    return Table(
        needs, lambda records: table([row for row in rows if row.bench in records], records, commands=commands)
    )


def _alone(bench: str, draw: Callable[[Record], str]) -> Table:
    return Table((bench,), lambda records: draw(records[bench]))


def machines(records: Mapping[str, Record], words: Words = ENGLISH) -> str:
    """One line of what the benchmarks ran on, from their own circumstances."""
    every = list(records.values())
    cpus = words.either.join(sorted({re.sub(r"\(R\)| Processor", "", record["cpu"]) for record in every}))
    cores = max(record["cores"] for record in every)
    dates = sorted(record["date"][:10] for record in every)
    versions = {
        name: ", ".join(sorted({record["versions"][name].partition("+")[0] for record in every}))
        for name in every[0]["versions"]
    }
    told = f"Python {versions['python']}, torch {versions['torch']}, ONNX Runtime {versions['onnxruntime']}"
    span = words.to.join(dict.fromkeys((dates[0], dates[-1])))
    return words.ran_on.format(cores=cores, machines=f"{cpus} ({told}; {span})")


def _summary(rows: Sequence[Row], words: Words) -> Table:
    """The table of a README: what it was measured on, how to do it again, and that bold misses its goal."""

    def draw(records: Mapping[str, Record]) -> str:
        known = [row for row in rows if row.bench in records]
        line = machines(records, words) + words.again.format(command=COMMANDS)
        if not any(record.get("quick") for record in records.values()):
            total = sum(len(goals()[bench]) for bench in goals() if bench in records)
            line += words.bold.format(missed=len(missed(records)), goals=total)
        return f"{line}\n\n{table(known, records, commands=True, headings=words.headings)}"

    return Table(tuple(dict.fromkeys(row.bench for row in rows)), draw)


def _missed(records: Mapping[str, Record]) -> str:
    rows = []
    for bench, name in missed(records):
        value, (sign, goal) = records[bench]["values"].get(name), goals()[bench][name]
        told = NOTHING if value is None else f"**{value:.4g}**"
        rows.append([f"`{bench}`", f"`{name}`", told, f"{'≥' if sign == '>=' else '≤'} {goal:g}"])
    return grid(["benchmark", "value", "measured", "goal"], rows) if rows else "None."


TABLES: Mapping[str, Table] = {
    "results": _summary(README, ENGLISH),
    "results_zh": _summary(README_ZH, CHINESE),
    "missed": Table(tuple(goals()), _missed),
    "machines": Table(tuple(goals()), machines),
    "speed": _of(RESULTS, commands=True),
    **{name: _alone(bench, draw) for name, (bench, draw) in GRIDS.items()},
    "device_goals": _of(DEVICE),
    "robust": _of(ROBUST),
    "scale": _of(SCALE),
    "scale_growth": _of(GROWTH),
}


def read(folder: Path) -> dict[str, Record]:
    """The records of a folder by the names of their files."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def drawn(records: Mapping[str, Record], names: Iterable[str] = TABLES) -> dict[str, str]:
    """Every table that has something to show."""
    own = {name: {bench: records[bench] for bench in TABLES[name].needs if bench in records} for name in names}
    return {name: TABLES[name].draw(found) for name, found in own.items() if found}


def tables(name: str, record: Record) -> dict[str, str]:
    """The tables of one benchmark alone."""
    return drawn({name: record}, [table for table, (needs, _) in TABLES.items() if name in needs])


def placed(page: str, made: Mapping[str, str]) -> str:
    """A page with every table of `made` between its marks; other regions stay as they are."""
    for name, text in made.items():
        begin, end = (MARK.format(name, side) for side in ("begin", "end"))
        before, found, rest = page.partition(f"{begin}\n")
        if found:
            page = f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}"
    return page


def regions(page: str) -> list[str]:
    """Names of the marked regions of a page."""
    return re.findall(r"<!-- (\w+): begin -->", page)
