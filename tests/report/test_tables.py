from hypothesis import given
from hypothesis import strategies as st

from edgemeta.report.tables import Column, cell_width, heading, table

ROWS = [
    {"name": "tapered", "latency_ms": 0.1234, "ram_kib": 98.0, "nets": 20},
    {"name": "conv4-64", "latency_ms": None, "ram_kib": 1375.5, "nets": 3},
]


def test_numbers_end_and_words_start_in_one_column():
    lines = table(ROWS).splitlines()
    assert lines[0].split("  ")[0] == "name" and "latency [ms]" in lines[0] and "ram [KiB]" in lines[0]
    end = lines[0].index("[ms]") + 4
    assert lines[2][:end].endswith("0.1234") and lines[3][:end].endswith(" -")
    assert len({len(line) for line in lines}) == 1


def test_a_column_keeps_its_decimals_in_every_row():
    lines = table([{"ms": 12.0}, {"ms": 0.5}]).splitlines()
    assert [line.strip() for line in lines[2:]] == ["12.00", "0.50"]


def test_columns_choose_order_headings_and_formats():
    text = table(ROWS, [Column("nets"), Column("ram_kib", "peak", ".1f")])
    assert text.splitlines()[0].split() == ["nets", "peak"] and "1375.5" in text and "tapered" not in text


def test_width_cuts_words_never_numbers():
    rows = [{"architecture": "edge-1x28x28:" + "0." * 40, "latency_ms": 0.25}]
    lines = table(rows, width=40).splitlines()
    assert max(map(cell_width, lines)) <= 40
    assert "…" in lines[2] and lines[2].endswith("0.2500")


def test_markdown_escapes_bars_and_aligns():
    lines = table([{"name": "a|b", "n": 3}], markdown=True).splitlines()
    assert lines == ["| name | n |", "| --- | ---: |", "| a\\|b | 3 |"]


def test_headings_carry_units():
    assert heading("predicted_latency_ms") == "predicted latency [ms]"
    assert (
        heading("seconds") == "time [s]" and heading("searcher") == "searcher" and heading("median_us") == "median [µs]"
    )


def test_nothing_to_show_is_said():
    assert table([]) == "(empty)"
    assert table([], ["latency_ms"]).splitlines()[0] == "latency [ms]"


def test_control_characters_do_not_reach_the_terminal():
    text = table([{"class": "a\x1b[31m\nb\tc", "ok": True}])
    assert "\x1b" not in text and len(text.splitlines()) == 3 and "yes" in text


VALUES = st.none() | st.text(max_size=12) | st.integers() | st.floats() | st.booleans()


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b_ms", "c"]), VALUES), max_size=5), st.integers(1, 60))
def test_any_rows_give_aligned_lines(rows, width):
    lines = table(rows, ["a", "b_ms", "c"], width=width).split("\n")
    assert len(lines) == 2 + len(rows)
    assert all(cell_width(line) <= cell_width(lines[1]) for line in lines)
