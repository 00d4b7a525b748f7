"""A farm of real ssh servers on this machine: profiled at once, sharing candidates, and going away."""

from __future__ import annotations

import json
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgemeta import pipeline
from edgemeta.cli import main
from edgemeta.errors import Infeasible
from edgemeta.latency import inventory
from edgemeta.latency import profile as profiles
from edgemeta.lowering import bundle
from edgemeta.stages import summary
from edgemeta.stages.candidates import first_fitting
from edgemeta.stages.meters import FarmMeter
from edgemeta.stages.run_folder import RunFolder
from edgemeta.types import Cost
from tests.blobs import blob_pool
from tests.boards import USER, Board, break_off
from tests.stages.test_candidates import candidate, problem  # noqa: F401

SPACE = ("--space", "tiny", "--in-shape", "1,12,12", "--no-progress")


def write(path: Path, boards: tuple[Board, ...], **first) -> Path:
    """An inventory of identical devices, board-1 and so on; `first` are settings of the first one alone."""
    common = {
        "host": "127.0.0.1",
        "user": USER,
        "python": sys.executable,
        "tries": 2,
        "pause_s": 0.05,
        "nets": 2,
        "seconds": 0.5,
    }
    tables = [common | {"port": each.port} | (first if i == 0 else {}) for i, each in enumerate(boards)]
    lines = [
        f"[board-{i + 1}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in t.items()) for i, t in enumerate(tables)
    ]
    path.write_text("\n".join(lines))
    return path


def slow_python(path: Path) -> str:
    """A Python that never comes to anything; `PATH.started` appears once it was asked."""
    path.write_text(f"#!/bin/sh\ntouch {path}.started\nexec sleep 60\n")
    path.chmod(0o755)
    return str(path)


def dies_in_the_middle(board: Board, python: Path) -> None:
    def watch():
        while not Path(f"{python}.started").exists():
            time.sleep(0.02)
        break_off(board, for_good=True)

    threading.Thread(target=watch, daemon=True).start()


def test_all_devices_are_profiled_at_once_and_only_once(boards, tmp_path, capsys):
    devices, run = write(tmp_path / "devices.toml", boards), tmp_path / "run"
    devices.write_text("[defaults]\ntimings = 3\n" + devices.read_text())
    command = ["profile", "--run", str(run), *SPACE, "--devices", str(devices)]
    assert main(command) == 0
    first = capsys.readouterr().out.splitlines()
    files = [run / f"profile-tiny-1x12x12-board-{i}.json" for i in (1, 2)]
    assert all(len(profiles.load(path).nets) == 3 and any(str(path) in line for line in first) for path in files)
    before = [path.stat().st_mtime_ns for path in files]
    break_off(boards[1], for_good=True)
    assert main(command) == 0
    assert capsys.readouterr().out.count("timed before") == 2
    assert main([*command, "--again"]) == 0
    told = capsys.readouterr().out
    after = [path.stat().st_mtime_ns for path in files]
    assert after[0] > before[0] and after[1] == before[1]
    assert "board-2: set aside: board-2 answers, but no ssh server does" in told
    assert main([*command, "--again", "--only", "board-2"]) == 2
    shown = capsys.readouterr().err.strip()
    assert shown.startswith("edgemeta: the device could not be profiled: board-2 answers") and "\n" not in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["profile", "--only", "a"], "--only needs --devices"),
        (["profile", "--devices", "d.toml", "--ssh", "pi"], "leave --ssh out"),
        (["profile", "--devices", "d.toml", "--runtime", "onnxruntime-web"], "only onnxruntime"),
        (["profile", "--devices", "d.toml", "--only", "bord"], "no device 'bord'; did you mean 'board'?"),
        (["profile", "--devices", "absent.toml"], "cannot read absent.toml"),
        (["profile", "--devices", "unlike.toml"], "[a] and [b] are both pi, but threads is 1 and 2; make them equal"),
        (["search", "--devices", "d.toml"], "--devices needs --device, one of d.toml"),
        (["search", "--devices", "d.toml", "--device", "bord"], "did you mean 'board'?"),
        (["search", "--devices", "d.toml", "--device", "board", "--energy-mj", "1"], "not measured over ssh"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(capsys, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    Path("d.toml").write_text("[board-1]\n[board-2]\n")
    Path("unlike.toml").write_text("[a]\nlike = 'pi'\nthreads = 1\n[b]\nlike = 'pi'\nthreads = 2\n")
    assert main(arguments) == 2
    shown = capsys.readouterr().err.strip()
    assert says in shown and "\n" not in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.toml", "unlike.toml"]


@pytest.fixture
def line(problem, tmp_path):  # noqa: F811
    return [candidate(problem, tmp_path, width=width, depth=depth) for width in (8, 4) for depth in (1, 2)]


def meter(path: Path) -> FarmMeter:
    return FarmMeter("board", inventory.read(path).alike("board"), progress=False)


def test_identical_devices_share_the_candidates(boards, problem, profile, line, tmp_path):  # noqa: F811
    where = meter(write(tmp_path / "devices.toml", boards))
    found, refused = first_fitting(tmp_path / "bundle", line, problem, profile, measure=where)
    assert found.candidate == line[0] and refused == [] and len(found.beside) == 1
    assert {found.how, found.beside[0].how} == {"measured on board-1", "measured on board-2"}
    manifest = bundle.read(tmp_path / "bundle")
    assert manifest.facts["latency"] == found.how and manifest.costs.measured
    assert found.cost.latency_ms == pytest.approx(sum(part.median_ms for part in manifest.costs.measured.inference))


def test_a_device_that_dies_in_the_middle_leaves_its_candidate_to_the_other(boards, problem, profile, line, tmp_path):  # noqa: F811
    python = tmp_path / "python"
    where = meter(write(tmp_path / "devices.toml", boards, python=slow_python(python)))
    dies_in_the_middle(boards[0], python)
    found, _ = first_fitting(tmp_path / "bundle", line[:2], problem, profile, measure=where)
    assert [each.how for each in (found, *found.beside)] == ["measured on board-2"] * 2
    assert "board-1 answers, but no ssh server does" in where.farm.lost["board-1"] and where.width == 1


def test_with_no_device_left_the_prediction_stands_and_says_so(boards, problem, profile, line, tmp_path):  # noqa: F811
    """The only device dies while it measures; the warning comes once."""
    python = tmp_path / "python"
    where = meter(write(tmp_path / "devices.toml", boards[:1], python=slow_python(python)))
    dies_in_the_middle(boards[0], python)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found, _ = first_fitting(tmp_path / "bundle", line, problem, profile, measure=where)
        again, _ = first_fitting(tmp_path / "other", line, problem, profile, measure=where)
    (warning,) = caught
    assert "board unreachable: board-1" in str(warning.message) and "\n" not in str(warning.message)
    manifest = bundle.read(tmp_path / "bundle")
    assert manifest.costs.measured is None and manifest.facts["latency"] == found.how == again.how
    assert found.how.startswith("predicted only (board unreachable: board-1 answers, but no ssh server does")


def test_a_candidate_over_the_cap_when_measured_there_is_refused(boards, problem, profile, line, tmp_path):  # noqa: F811
    where = meter(write(tmp_path / "devices.toml", boards[:1]))
    tight = replace(problem, cap=Cost(latency_ms=1e-9))
    with pytest.raises(Infeasible, match="of 1 that became bundles, none fits"):
        first_fitting(tmp_path / "bundle", line[:1], tight, profile, measure=where)


def test_a_search_profiles_the_device_measures_there_and_tells(boards, tmp_path, capsys):
    pool = blob_pool(classes=25, seed=0)
    np.savez(tmp_path / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(25), 10))
    run, devices = tmp_path / "run", write(tmp_path / "devices.toml", boards)
    settings = {"space": "tiny", "in_shape": (1, 12, 12), "data": "npz", "root": tmp_path / "blobs.npz", "way": 4}
    settings |= {"cache": tmp_path / "cache", "rungs": (3,), "eval_episodes": 4, "workers": 1, "trials": 1}
    settings |= {"searcher": "random", "progress": False, "run": run, "device": "board", "devices": devices}
    told = str(pipeline.search(**settings))
    noted = json.loads((run / "search.json").read_text())
    assert noted["winner"]["how"] in ("measured on board-1", "measured on board-2") and noted["winner"]["measured"]
    assert noted["winner"]["how"] in told and len(list(run.glob("profile-tiny-1x12x12-board-?.json"))) == 1
    for each in boards:
        break_off(each, for_good=True)
    with pytest.warns(UserWarning, match="board unreachable"):
        told = str(pipeline.search(**settings))
    assert "predicted only (board unreachable: " in told
    assert json.loads((run / "search.json").read_text())["winner"]["measured"] is None
    story = summary.story(RunFolder(run))
    assert "ms, predicted only (board unreachable" in story.profile["Candidates"]
