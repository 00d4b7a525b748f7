"""The harness that kills commands: it finds what is lost, damaged, different or left running."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import uuid

import kill_test as bench
import numpy as np
import pytest


@pytest.fixture
def run(tmp_path):
    bench.prepare(tmp_path / "root")
    (tmp_path / "root" / "run").mkdir()
    return tmp_path / "root"


def test_damaged_files_are_found_and_temporary_ones_are_not(run):
    (run / "run" / "search.json").write_text('{"half": ')
    (run / "state.npz").write_bytes(b"PK half")
    (run / "run" / "ledger.sqlite").write_bytes(b"not a database" * 100)
    (run / "run" / ".search.json.tmp").write_text("half")
    assert [what.partition(":")[0] for what in bench.damaged(run)] == [
        "run/ledger.sqlite",
        "run/search.json",
        "state.npz",
    ]


def test_processes_that_stay_are_found_and_ended(monkeypatch):
    monkeypatch.setattr(bench, "ORPHAN_S", 0.2)
    mark = uuid.uuid4().hex
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={bench.MARK: mark})
    (told,) = bench.orphans(mark)
    assert str(left.pid) in told and left.wait(5) < 0 and not bench.orphans(mark)


def test_a_command_is_killed_until_it_ends(run, monkeypatch):
    counter = "import time, pathlib; p = pathlib.Path('n'); p.write_text(p.read_text() + 'x' if p.exists() else 'x')"
    script = f"{counter}; time.sleep(0.3)"
    found = bench.Found()
    monkeypatch.setattr(bench, "started", lambda root, *_: subprocess.Popen([sys.executable, "-c", script], cwd=root))
    bench.disturbed(run, "search", 0.6, found, random.Random(1))
    assert found.kills >= 1 and not (found.lost or found.corrupt or found.orphans)


def test_what_is_not_as_undisturbed_is_told(tmp_path):
    known = {"ranking": [1], "graphs": {}}
    assert bench.apart(known, known | {"ranking": [2]}) == ["ranking differs"] and not bench.apart(known, known)
    assert json.loads(json.dumps(bench.counts(bench.Found(lost=["x"])))) == {
        "lost": 1,
        "corrupt": 0,
        "orphans": 0,
        "different": 0,
    }
    assert np.isfinite(bench.timed(lambda: None))
