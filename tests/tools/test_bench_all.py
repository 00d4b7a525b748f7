"""All benchmarks by one command: all have the same options, what fails stops no other, what is done is kept."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import all as bench
import pytest
from _benches import BENCHES, Bench, lacking

from edgemeta.files import write_json

FINE = """
import sys
from _common import emit, parser
args = parser("Fine.", quick={"size": 2})
args.add_argument("--size", type=int, default=9)
given = args.parse_args()
sys.exit(emit("fine", {"size": given.size}, [], given.json, goals=given.goals, quick=given.quick))
"""


@pytest.mark.parametrize("script", sorted({bench.script for bench in BENCHES.values()}))
def test_each_script_has_the_options_of_all_and_can_be_shortened(script, monkeypatch, capsys):
    module = importlib.import_module(Path(script).stem)
    monkeypatch.setattr(sys, "argv", [script, "--quick", "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert (
        all(f"  {option}" in told for option in ("--json", "--goals", "--quick"))
        and "shortened: the same as --" in told
    )


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """Benchmarks of a test's own: one that is fine, one that fails, one whose data is nowhere."""
    (tmp_path / "fine.py").write_text(FINE)
    (tmp_path / "bad.py").write_text("print('begun')\nraise SystemExit('it broke')\n")
    rows = {"fine": Bench(str(tmp_path / "fine.py")), "bad": Bench(str(tmp_path / "bad.py"))}
    rows |= {"far": Bench("omniglot.py", data=("nowhere",)), "same": Bench(str(tmp_path / "fine.py"), quick=False)}
    for module in (bench, sys.modules["_benches"]):
        monkeypatch.setattr(module, "BENCHES", rows)
    monkeypatch.setenv("PYTHONPATH", f"{bench.ROOT}:{bench.HERE}")
    return tmp_path / "out"


def asked(out: Path, *more: str) -> int:
    return bench.main(["--out", str(out), "--data-root", str(out), *more])


def test_what_fails_or_is_absent_does_not_stop_the_others(ours, capsys):
    assert asked(ours, "--quick", "--only", "bad,far,same,fine") == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("1/4 bad ... FAILED after") and told[0].endswith("it broke")
    assert "far ... left out: no nowhere/ below" in told[1] and "same ... left out: shortened" in told[2]
    assert told[3].startswith("4/4 fine ...") and "of processors" in told[3]
    assert json.loads((ours / "fine.json").read_text())["values"] == {"size": 2}
    page = (ours / "tables.md").read_text()
    assert bench.SHORTENED in page and "- `fine`: --size 2" in page and "- bad: FAILED" in page


def test_what_is_done_is_not_done_again_and_what_failed_is(ours, capsys):
    asked(ours, "--only", "fine")
    write_json(ours / "fine.json", json.loads((ours / "fine.json").read_text()) | {"date": "2001-02-03T04:05:06"})
    capsys.readouterr()
    assert asked(ours, "--only", "fine,bad") == 1
    told = capsys.readouterr().out
    assert "fine ... done before, at 2001-02-03T04:05" in told and "bad ... FAILED" in told
    assert asked(ours, "--only", "fine", "--again") == 0
    assert "2001" not in (ours / "fine.json").read_text()
    assert "Shortened" not in (ours / "tables.md").read_text()


def test_a_missed_goal_is_a_failure_with_a_result(ours, tmp_path, capsys):
    write_json(tmp_path / "goals.json", {"fine": {"size": ["<=", 1]}})
    assert asked(ours, "--only", "fine", "--goals", str(tmp_path / "goals.json")) == 1
    assert "a goal is missed" in capsys.readouterr().out and (ours / "fine.json").exists()


def test_one_that_takes_too_long_is_ended(ours, monkeypatch, capsys):
    (ours.parent / "bad.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(bench, "QUICK_MOST_S", 0.5)
    assert asked(ours, "--quick", "--only", "bad") == 1
    assert "FAILED after" in capsys.readouterr().out


def test_a_table_that_cannot_be_drawn_is_told_and_the_others_are_drawn(tmp_path):
    write_json(
        tmp_path / "first_bundle.json", json.loads((bench.RESULTS / "first_bundle.json").read_text()) | {"rows": []}
    )
    write_json(tmp_path / "latency_speed.json", json.loads((bench.RESULTS / "latency_speed.json").read_text()))
    text = bench.page(tmp_path, [], [])
    assert f"## speed\n\n{bench.NOT_DRAWN}: KeyError 'next cap'" in text and "## machines\n\nOn " in text


@pytest.mark.slow
def test_a_shortened_benchmark_makes_the_published_table(tmp_path, capsys):
    assert bench.main(["--quick", "--only", "latency_speed", "--out", str(tmp_path)]) == 0
    record, page = json.loads((tmp_path / "latency_speed.json").read_text()), (tmp_path / "tables.md").read_text()
    assert record["quick"] and f"- `latency_speed`: {record['quick']}" in page
    assert "## results" in page and "| architectures predicted in a second, one core |" in page


def test_unknown_names_are_told(capsys):
    with pytest.raises(SystemExit):
        bench.main(["--only", "omniglott"])
    assert "unknown: omniglott; there are end_to_end" in capsys.readouterr().err


def test_full_runs_are_those_whose_results_are_stored(tmp_path):
    args = bench._arguments(["--out", str(tmp_path), "--data-root", str(tmp_path)])
    for name, known in BENCHES.items():
        told = bench.command(known, tmp_path / f"{name}.json", args)
        assert told[:2] == [sys.executable, str(bench.HERE / known.script)] and "--quick" not in told
        assert ("--data-root" in told) == bool(known.data) and ("--run" in told) == known.keeps


def test_what_a_benchmark_lacks_is_one_line(tmp_path):
    assert lacking(Bench("x.py"), tmp_path) == ""
    assert "pip install" in lacking(Bench("x.py", modules=("no_such_module",)), tmp_path)
    (tmp_path / "help").mkdir()
    assert lacking(Bench("x.py", data=("help",)), tmp_path) == ""


def test_it_runs_from_anywhere(tmp_path):
    code = [sys.executable, str(bench.HERE / "all.py"), "--compare", str(tmp_path / "none")]
    environment = {"PYTHONPATH": str(bench.ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(code, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "name a result" in done.stderr
