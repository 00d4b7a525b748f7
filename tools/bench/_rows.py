"""Tables of "what | measured | goal": rows of text whose placeholders are values of a benchmark and its goals.

    Row("the whole demo", "end_to_end", "{total_s:.0f} s", "≤ {total_s:g} s")

In `measured` a name is a value of the record, or a fact that `FACTS` draws from its rows; in `goal` it is that value's
goal of `goals.json`. A value that misses its goal is bold wherever it is shown. Formats are Python's, and three more:
"%" with a space before it, "M" for millions, and "c" for correlations, which have no zero before the point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

from _common import COMPARE, read_goals

Record = Mapping[str, Any]  # what `_common.emit` writes
GOALS = Path(__file__).with_name("goals.json")
NOTHING = "–"


class Row(NamedTuple):
    what: str
    bench: str
    measured: str
    goal: str = ""


class Words(NamedTuple):
    """Of the table of a README, in its language."""

    headings: Sequence[str]
    either: str  # between two processors
    to: str  # between two days
    ran_on: str
    again: str
    bold: str


@cache
def goals() -> Mapping[str, Mapping[str, tuple[str, float]]]:
    """What every published value should be."""
    return read_goals(GOALS)


def grid(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines).replace(
        " --- ", "---"
    )


HEADINGS = ("what", "measured", "goal", "benchmark")


def table(
    rows: Sequence[Row],
    records: Mapping[str, Record],
    *,
    commands: bool = False,
    headings: Sequence[str] = HEADINGS,
) -> str:
    """The rows as markdown; with `commands` the benchmark stands behind each."""
    lines = []
    for row in rows:
        cells = [fill(row.what, row.bench, records), fill(row.measured, row.bench, records), fill_goal(row)]
        lines.append([*cells, f"`{row.bench}`"] if commands else cells)
    return grid(headings if commands else headings[:-1], lines)


def fill(template: str, bench: str, records: Mapping[str, Record]) -> str:
    """Placeholders as facts of the benchmark; a dash where it has no such value."""
    known = facts(bench, records[bench]) if bench in records else {}
    told = []
    for text, name, form, _ in Formatter().parse(template):
        told.append(text)
        if name:
            value = shown(known[name], form or "") if name in known else NOTHING
            told.append(marked(value, bench, name, records[bench]) if name in known else value)
    return "".join(told)


def fill_goal(row: Row) -> str:
    """Placeholders as goals."""
    own = {name: goal for name, (_, goal) in goals().get(row.bench, {}).items()}
    parts = Formatter().parse(row.goal)
    return "".join(text + (shown(own[name], form or "") if name else "") for text, name, form, _ in parts)


def shown(value: Any, form: str) -> str:
    """A value in its format, with a true minus sign."""
    if isinstance(value, str):
        return value
    if form.endswith("M"):
        return f"{value / 1e6:{form[:-1]}f} million"
    text = f"{value:{form[:-1]}f}" if form.endswith("c") else f"{value:{form}}"
    if form.endswith("c"):
        text = text.replace("0.", ".", 1) if abs(value) < 1 else text
    return ("−" + text[1:] if text.startswith("-") else text).replace("%", " %")


def brief(value: float) -> str:
    """Three decimals of a small number, none of a large one."""
    return "0" if not value else f"{value:.3f}" if value < 0.1 else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def marked(text: str, bench: str, name: str, record: Record) -> str:
    """Text of a value, bold where it misses its goal; goals are not held against shortened runs."""
    return f"**{text}**" if not record.get("quick") and misses(bench, name, record["values"]) else text


def misses(bench: str, name: str, known: Mapping[str, Any]) -> bool:
    """Whether a value has a goal and is not up to it."""
    if name not in goals().get(bench, {}):
        return False
    sign, goal = goals()[bench][name]
    return name not in known or not COMPARE[sign](known[name], goal)


def missed(records: Mapping[str, Record]) -> list[tuple[str, str]]:
    """(benchmark, value) of every goal that is missed, in the order of `goals.json`."""
    return [
        (bench, name)
        for bench, own in goals().items()
        if bench in records and not records[bench].get("quick")
        for name in own
        if misses(bench, name, records[bench]["values"])
    ]


def facts(bench: str, record: Record) -> dict[str, Any]:
    """The values of a record, and what its rows tell beside them."""
    return {**record["values"], **FACTS.get(bench, lambda _: {})(record)}


def _first_bundle(record: Record) -> dict[str, Any]:
    seconds = {row["what"]: row["seconds"] for row in record["rows"] if row.get("seconds") is not None}
    return {"next_cap_s": seconds["next cap"], "minutes": f"{record['extra']['minutes']:g}"}


def _omniglot(record: Record) -> dict[str, Any]:
    best = max(record["rows"], key=lambda row: row["5w1s"])
    own = record["values"]
    short = [name for name in goals()["omniglot"] if name in own and misses("omniglot", name, own)]
    told = ", ".join(f"{name.replace('_', ' ')} {own[name]:.2f} of {goals()['omniglot'][name][1]:g}" for name in short)
    return {
        "best_5w1s": best["5w1s"],
        "best": best["learner"],
        "learners": len(record["rows"]),
        "minutes": f"{float(record['extra']['minutes']):g}",
        "goals": len([name for name in goals()["omniglot"] if name in own]),
        "short": f"**{len(short)}** ({told})" if short else "0",
    }


def _latency(record: Record) -> dict[str, Any]:
    return {"nets": max(len(record["extra"][row["device"]]["nets"]) for row in record["rows"])}


def _kills(record: Record) -> dict[str, Any]:
    names = ("lost", "corrupt", "orphans", "different")
    return {"wrong": sum(record["values"][name] for name in names)}


def _macro(record: Record) -> dict[str, Any]:
    own = [row for row in record["extra"]["searches"] if row["searcher"] == "metapolicy"]
    return {"budgets": len(own), "queries": record["extra"]["queries"]}


def _device(record: Record) -> dict[str, Any]:
    return {"networks": len({(row["net"], row["pixels"]) for row in record["rows"]})}


def _learned(record: Record) -> dict[str, Any]:
    return {"learners": len({row["learner"] for row in record["rows"]})}


def _steps(record: Record) -> dict[str, Any]:
    return {"steps": " and ".join(map(str, record["extra"]["steps"]))}


def _scale(record: Record) -> dict[str, Any]:
    rows = record["extra"]["table"]
    took = {row["processes"]: row["took_s"] for row in rows if row["part"] == "search"}
    asks = {f"{row['searcher']}_ms": list(row.values())[-1] for row in rows if row["part"] == "ask"}
    counts = [int(key.rpartition("_")[2]) for row in rows if row["part"] == "ask" for key in row if "ask_ms" in key]
    return {f"took_{count}_s": seconds for count, seconds in took.items()} | asks | {"told": max(counts, default=0)}


def _growth(record: Record) -> dict[str, Any]:
    rows = record["extra"]["table"]
    ledgers = [row for row in rows if row["part"] == "ledger"]
    names = ("append_ms", "open_s", "ram_mib", "file_mib")
    told: dict[str, Any] = {name: ", ".join(brief(row[name]) for row in ledgers) for name in names}
    told["sizes"] = ", ".join(f"{row['trials']:,}" for row in ledgers)
    return told | {f"{row['learner']}_speedup": row["speedup"] for row in rows if row["part"] == "training"}


FACTS: Mapping[str, Callable[[Record], dict[str, Any]]] = {
    "first_bundle": _first_bundle,
    "omniglot": _omniglot,
    "host_latency": _latency,
    "device_runtime": _device,
    "learn_on_device": _learned,
    "meta_speed": _steps,
    "kill_test": _kills,
    "search_macro": _macro,
    "scale": _scale,
    "scale_growth": _growth,
}
