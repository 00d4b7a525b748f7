"""Benchmarks report the same way: aligned table, JSON with circumstances, goals that can be missed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _common import emit, parser, read_goals, verdict

from edgemeta.errors import BadConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def goals(tmp_path) -> Path:
    path = tmp_path / "goals.json"
    path.write_text(json.dumps({"_": "a remark", "speed": {"ratio": [">=", 1.4], "broken": ["<=", 0]}}))
    return path


def test_json_holds_values_rows_and_circumstances(tmp_path, capsys):
    path = tmp_path / "new" / "out.json"
    rows = [{"net": "a", "ms": np.float32(0.5)}, {"net": "b", "ms": 2}]
    assert emit("speed", {"ratio": np.float64(1.5), "broken": 0}, rows, path, {"seed": 3}) == 0
    record = json.loads(path.read_text())
    assert record["values"] == {"ratio": 1.5, "broken": 0}
    assert record["rows"] == [{"net": "a", "ms": 0.5}, {"net": "b", "ms": 2}]
    assert record["extra"] == {"seed": 3}
    assert {"commit", "dirty", "date", "versions", "cpu", "cores", "threads"} <= set(record)
    assert record["versions"]["numpy"] == np.__version__ and record["cpu"]
    assert str(path) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "code"),
    [({"ratio": 1.4, "broken": 0}, 0), ({"ratio": 1.39, "broken": 0}, 1), ({"ratio": 2.0}, 1)],
)
def test_a_missed_or_missing_goal_fails_the_run(goals, capsys, values, code):
    assert emit("speed", values, [], goals=goals) == code
    assert ("NO" in capsys.readouterr().out) == bool(code)


def test_goals_of_other_benchmarks_do_not_count(goals):
    assert emit("accuracy", {"ratio": 0.1}, [], goals=goals) == 0


def test_verdict_compares_both_ways():
    rows = verdict("b", {"x": 1.0, "y": 1.0, "z": 9.0}, {"b": {"x": ("<=", 1), "y": (">=", 1.1), "w": ("<=", 1)}})
    assert [(row.name, row.goal, row.met) for row in rows] == [
        ("x", "<= 1", True),
        ("y", ">= 1.1", False),
        ("w", "<= 1", False),
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"b": {"x": 3}}', '{"b": 3}', '{"b": {"x": ["<=", "fast"]}}'])
def test_bad_goals_are_one_line(tmp_path, text):
    path = tmp_path / "goals.json"
    path.write_text(text)
    with pytest.raises(BadConfig, match="cannot read goals") as caught:
        read_goals(path)
    assert "\n" not in str(caught.value)


def test_an_unknown_comparison_is_refused(tmp_path):
    path = tmp_path / "goals.json"
    path.write_text('{"b": {"x": ["<", 1]}}')
    with pytest.raises(BadConfig, match="'<'"):
        read_goals(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, "fast", None, True])
def test_a_value_that_is_no_finite_number_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match="ratio"):
        emit("speed", {"ratio": value}, [], tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_options_and_defaults():
    args = parser("A table.", quick={}).parse_args([])
    assert args.json is None and args.goals is None and args.quick == ""


def test_quick_sets_options_that_can_be_set_again_and_is_told():
    options = parser("A table.", quick={"nets": 3, "sizes": [1, 2], "tiny": True})
    options.add_argument("--tiny", action="store_true")
    options.add_argument("--nets", type=int, default=300)
    options.add_argument("--sizes", type=int, nargs="+", default=[9])
    args = options.parse_args(["--quick", "--nets", "5"])
    assert (args.nets, args.sizes, args.tiny, args.quick) == (5, [1, 2], True, "--nets 3 --sizes 1 2 --tiny")


def test_quick_knows_only_options():
    with pytest.raises(ValueError, match="no option: nest"):
        parser("A table.", quick={"nest": 3}).parse_args(["--quick"])


def test_a_shortened_run_is_told_as_one_and_not_held_against_goals(goals, tmp_path, capsys):
    path = tmp_path / "out.json"
    assert emit("speed", {"ratio": 0.1}, [], path, goals=goals, quick="--nets 3") == 0
    assert json.loads(path.read_text())["quick"] == "--nets 3"
    assert "not comparable: --nets 3" in capsys.readouterr().out


def test_a_script_beside_it_can_use_it(tmp_path):
    script = tmp_path / "speed.py"
    script.write_text("from _common import emit; import sys; sys.exit(emit('b', {'x': 1}, [{'a': 2}]))")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tools' / 'bench'}"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "x" in done.stdout
