"""The lock names every wheel that the constraints pin, by its digest."""

import re
from pathlib import Path

from tools import make_lock

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s+]+)")


def pins(path):
    lines = path.read_text().splitlines()
    found = [PIN.match(line) for line in lines if line and not line.startswith("#")]
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def test_the_lock_has_what_the_constraints_pin():
    assert pins(make_lock.LOCK) == pins(ROOT / "constraints.txt"), "run python tools/make_lock.py"
    lines = [line for line in make_lock.LOCK.read_text().splitlines() if not line.startswith("#")]
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}$", line) for line in lines)


def test_a_report_becomes_lines():
    def entry(name, digest):
        return {
            "metadata": {"name": name, "version": "1"},
            "download_info": {"archive_info": {"hashes": {"sha256": digest}}},
        }

    first, *lines = make_lock.locked({"install": [entry("b", "1f"), entry("A", "2e")]}).splitlines()
    assert first.startswith("#") and lines == ["A==1 --hash=sha256:2e", "b==1 --hash=sha256:1f"]
