"""What goes wrong around a command: a disk that is full, a folder that cannot be written, a clock that jumps."""

import random
import time
from pathlib import Path

import numpy as np
import pytest

from edgemeta import pipeline
from tests import copies
from tests.blobs import blob_pool

pytestmark = pytest.mark.timeout(180)  # commands in processes of their own, beside whatever else a machine does
TASK = {
    "space": "tiny", "in_shape": (1, 12, 12), "data": "npz", "root": "blobs.npz", "cache": "cache", "device": "null",
    "latency_ms": 0.06, "way": 4, "rungs": (3, 9), "eval_episodes": 10, "trials": 4, "workers": 1, "progress": False,
}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    pool = blob_pool(classes=25, seed=0)
    np.savez(tmp_path / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(25), 10))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(place, *flags, most_bytes=None):
    """A search in a process whose files cannot grow beyond some size: what a full disk does to it."""
    shown = {name: ",".join(map(str, value)) if isinstance(value, tuple) else value for name, value in TASK.items()}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in shown.items() if name != "progress"]
    return copies.edgemeta("search", *options, "--no-progress", *flags, cwd=place, most_bytes=most_bytes)


def ranking(folder):
    return [
        line for line in (folder / "search.json").read_text().splitlines() if '"score"' in line or '"picks"' in line
    ]


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(place):
    failed = command(place, "--run", "run", most_bytes=60_000)  # the ledger alone takes more
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1
    assert "free space" in failed.stderr and not (place / "run" / "search.json").exists()
    pipeline.search(**TASK, run=Path("run"))
    pipeline.search(**TASK, run=Path("other"))
    assert ranking(place / "run") == ranking(place / "other")
    assert not [left for left in (place / "run").rglob("*") if left.name.endswith(".tmp")]


def test_a_folder_that_cannot_be_written_is_one_line(place):
    failed = command(place, "--run", "/proc/nothing-can-be-made-here")
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1 and "choose another --run" in failed.stderr


def test_a_clock_that_jumps_changes_nothing(place, monkeypatch):
    pipeline.search(**TASK, run=Path("steady"))
    rng = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: rng.choice((0.0, 1e9, 4e9)))
    pipeline.search(**TASK, run=Path("jumping"))
    assert ranking(place / "jumping") == ranking(place / "steady")
