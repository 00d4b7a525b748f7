"""Published tables: drawn from the stored JSON alone, in every page that holds one, bold where a goal is missed."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
from _benches import BENCHES
from _rows import Row, facts, fill, goals, missed, shown, table
from _tables import TABLES, drawn, placed, read, regions, tables
from all import PAGES, RESULTS, ROOT, redraw

STORED = read(RESULTS)
WAITING = {"torchrun_speed"}  # measured, and not stored yet: its region is empty


def pages() -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for pattern in PAGES for path in sorted(ROOT.glob(pattern))}


def test_every_result_is_of_a_benchmark_and_every_benchmark_has_one():
    assert set(STORED) | WAITING == set(BENCHES)
    assert not any(record.get("quick") for record in STORED.values())
    assert all(BENCHES[name].script == f"{record['name']}.py" for name, record in STORED.items())


def test_pages_hold_what_is_stored():
    made = drawn(STORED)
    for name, text in pages().items():
        assert placed(text, made) == text, f"{name} differs from the stored results: python tools/bench/all.py --stored"


def test_every_table_has_one_place_and_every_region_a_table():
    held = [region for text in pages().values() for region in regions(text)]
    assert sorted(held) == sorted(set(held)) == sorted(TABLES)


@pytest.mark.parametrize("page", ["README.md", "results.md"])
def test_no_table_of_measurements_is_typed(page):
    text = pages()[page]
    for name in regions(text):
        text = re.sub(f"<!-- {name}: begin -->.*?<!-- {name}: end -->", "", text, flags=re.DOTALL)
    typed = [line for line in text.splitlines() if line.startswith("|")]
    assert page == "README.md" or not typed
    assert not any("goal" in line for line in typed)


@pytest.mark.parametrize("name", STORED)
def test_each_benchmark_has_tables_that_show_its_numbers(name):
    made = tables(name, STORED[name])
    assert made and all(made.values())
    other = copy.deepcopy(STORED[name])
    other["values"] = {key: value * 3 + 7 for key, value in other["values"].items()}
    other["rows"] = [{key: _moved(value) for key, value in row.items()} for row in other["rows"]]
    other["extra"] = _moved(other["extra"])
    again = tables(name, other)
    assert [key for key in made if made[key] != again[key]], "its tables do not depend on what was measured"


def _moved(value):
    """Every fraction moved; what is counted or named stays."""
    if isinstance(value, dict):
        return {key: _moved(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_moved(own) for own in value]
    return value * 3 + 7 if isinstance(value, float) else value


def test_goals_are_of_values_that_are_measured():
    for bench, own in goals().items():
        assert set(own) <= set(STORED[bench]["values"]), bench


def test_what_misses_its_goal_is_bold_and_listed():
    rows = [Row("time of {kills} kills", "kill_test", "{lost}; {corrupt}", "{lost:g}")]
    record = copy.deepcopy(STORED["kill_test"])
    assert "| time of 110 kills | 0; 0 | 0 |" in table(rows, {"kill_test": record})
    record["values"]["lost"] = 2
    assert "| **2**; 0 |" in table(rows, {"kill_test": record})
    assert ("kill_test", "lost") in missed({"kill_test": record})
    short = record | {"quick": "--kills 1"}
    assert "| 2; 0 |" in table(rows, {"kill_test": short}) and not missed({"kill_test": short})


def test_a_value_that_is_not_there_is_a_dash():
    assert fill("{nothing:.2f} ms", "fuzz", STORED) == "– ms"
    assert fill("{lost}", "kill_test", {}) == "–"


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [(0.9766, ".1%", "97.7 %"), (-0.136, ".2c", "−.14"), (3.1e6, ".1M", "3.1 million"), (3e-6, ".0e", "3e-06")],
)
def test_formats(value, form, text):
    assert shown(value, form) == text


def test_stored_tables_are_written_into_pages_and_nothing_else_is(tmp_path):
    (tmp_path / "docs").mkdir()
    page, plain = tmp_path / "README.md", tmp_path / "docs" / "plain.md"
    page.write_text("before\n<!-- robust: begin -->\n| old | 1 |\n<!-- robust: end -->\nafter <!-- other: begin -->\n")
    plain.write_text("no table here\n")
    assert redraw(tmp_path) == [page]
    text = page.read_text()
    assert text.startswith("before\n<!-- robust: begin -->\n| what |") and "| old" not in text
    assert text.endswith("<!-- robust: end -->\nafter <!-- other: begin -->\n")
    assert redraw(tmp_path) == []


def test_facts_of_rows_are_those_of_rows():
    record = json.loads((RESULTS / "first_bundle.json").read_text())
    seconds = {row["what"]: row.get("seconds") for row in record["rows"]}
    assert facts("first_bundle", record)["next_cap_s"] == seconds["next cap"]
    best = max(STORED["omniglot"]["rows"], key=lambda row: row["5w1s"])
    assert facts("omniglot", STORED["omniglot"])["best"] == best["learner"]


def test_scripts_that_are_no_benchmark_begin_with_an_underscore():
    scripts = {path.name for path in Path(RESULTS).parent.glob("[a-z]*.py")}
    assert scripts == {bench.script for bench in BENCHES.values()} | {"all.py"}
