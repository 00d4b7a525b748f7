"""The runner as a device starts it: a file, a kit, and nothing of this project beside them."""

from __future__ import annotations

import ast
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgemeta import files
from edgemeta.latency import kit as kits
from edgemeta.latency import machine

RUNNER = files.resource("export") / "python" / "edgemeta_profile.py"
BLOCKED = ("torch", "edgemeta", "onnx", "tqdm", "scipy", "pydantic")
BLOCK = "import sys; sys.modules.update(dict.fromkeys({blocked!r})); sys.argv[0] = sys.argv[1]; del sys.argv[1]; "
RUN = BLOCK + "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("edgemeta_profile", RUNNER)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def small(tiny, tmp_path_factory) -> Path:
    """Two networks at two moments."""
    archs, _ = kits.covering_and_random(tiny, 0, seed=0)
    return kits.write(tmp_path_factory.mktemp("small"), tiny, archs[:2], covering=2, seed=0).folder


@pytest.fixture(scope="module")
def large(tiny, tmp_path_factory) -> Path:
    """Enough to be interrupted in the middle."""
    archs, covering = kits.covering_and_random(tiny, 1500, seed=0)
    return kits.write(tmp_path_factory.mktemp("large"), tiny, archs, covering=covering, seed=0).folder


@pytest.fixture
def copy(small, tmp_path) -> Path:
    return shutil.copytree(small, tmp_path / "kit")


def command(*arguments, blocked=BLOCKED) -> list[str]:
    return [sys.executable, "-c", RUN.format(blocked=blocked), *map(str, (RUNNER, *arguments))]


def run(*arguments, blocked=BLOCKED) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments, blocked=blocked), capture_output=True, text=True, timeout=50, check=False)


def refused(*arguments, blocked=BLOCKED) -> str:
    done = run(*arguments, blocked=blocked)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


# What it writes


def test_it_runs_with_numpy_and_onnxruntime_alone(small, tmp_path):
    out = tmp_path / "new folder" / "t.json"
    done = run(small, "--out", out)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines()[-1] == "progress 6 6"
    record, plan = json.loads(out.read_text()), json.loads((small / "plan.json").read_text())
    assert record["kit"] == plan["kit"] and record["runtime"] == "onnxruntime" and record["finished"]
    assert {net for net, *_ in record["visits"]} == {0, 1} and 6 <= len(record["visits"]) <= 10
    assert all(ms > 0 and iqr >= 0 and reference > 0 for _, ms, iqr, reference, _ in record["visits"])
    seconds = [visit[4] for visit in record["visits"]]
    assert seconds == sorted(seconds) and seconds[-1] == record["spent_s"] and record["head_ms"] > 0
    assert record["cpu"] == machine.cpu() and record["affinity"] == sorted(os.sched_getaffinity(0))
    assert record["governor"] and record["cores"] >= 1 and record["load"] >= 0 and "python" in record["versions"]
    assert [path.name for path in out.parent.iterdir()] == ["t.json"]


def test_in_a_kits_folder_no_argument_is_needed(copy, tmp_path):
    kits.carry(copy)
    done = subprocess.run([sys.executable, copy / "edgemeta_profile.py"], cwd=tmp_path, capture_output=True, check=True)
    assert done.stderr == b"" and json.loads((copy / "timings.json").read_text())["finished"]


def test_it_is_python_39():
    assert ast.parse(RUNNER.read_text(), feature_version=(3, 9)).body


def test_time_up_ends_the_run_in_good_order(large, tmp_path):
    assert run(large, "--out", tmp_path / "t.json", "--seconds", "0.05").returncode == 0
    record = json.loads((tmp_path / "t.json").read_text())
    assert record["finished"] and record["head_ms"] > 0 and 0 < len(record["visits"]) < 1500


# Being cut off


def cut_off(large, out, end) -> dict:
    """Start, end it by `end` once something is on disk, and return what is there."""
    with subprocess.Popen(command(large, "--out", out), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        until = time.monotonic() + 40
        while not out.exists() and time.monotonic() < until:
            child.stdout.readline()
        end(child)
        code = child.wait(20)
    record = json.loads(out.read_text())
    assert code and record["visits"] and not record["finished"] and record["head_ms"] is None
    return record


@pytest.mark.parametrize(
    "end",
    [
        lambda child: child.send_signal(signal.SIGINT),
        lambda child: child.send_signal(signal.SIGTERM),
        lambda child: child.kill(),
        lambda child: child.stdout.close(),  # a connection that broke
    ],
    ids=["ctrl-c", "terminated", "killed", "nobody listens"],
)
def test_cut_off_and_started_again_it_goes_on(large, tmp_path, end):
    out = tmp_path / "t.json"
    first = cut_off(large, out, end)
    assert run(large, "--out", out, "--seconds", first["spent_s"] + 0.1).returncode == 0
    again = json.loads(out.read_text())
    assert again["visits"][: len(first["visits"])] == first["visits"] and len(again["visits"]) > len(first["visits"])
    assert again["finished"] and again["spent_s"] > first["spent_s"]


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory) -> bytes:
    """What a run leaves."""
    out = tmp_path_factory.mktemp("finished") / "t.json"
    run(small, "--out", out)
    return out.read_bytes()


def test_a_finished_run_is_not_timed_again(small, finished, tmp_path):
    out = tmp_path / "t.json"
    out.write_bytes(finished)
    assert run(small, "--out", out).returncode == 0 and out.read_bytes() == finished


@pytest.mark.parametrize(
    "change",
    [
        lambda record: json.dumps(record | {"kit": "another"}),
        lambda record: json.dumps(record | {"cpu": "another"}),
        lambda record: json.dumps(record | {"versions": {}}),
        lambda record: json.dumps(record | {"saved_at": record["saved_at"] - 4000}),
        lambda record: json.dumps(record | {"saved_at": record["saved_at"] + 4000}),
        lambda record: json.dumps(record)[:-9],
        lambda record: "[]",
        lambda record: "",
    ],
)
def test_what_is_not_the_same_run_of_this_hour_is_timed_anew(small, finished, tmp_path, change):
    out, record = tmp_path / "t.json", json.loads(finished)
    record["visits"][0][1] = 12345.0
    out.write_text(change(record))
    run(small, "--out", out)
    visits = json.loads(out.read_text())["visits"]
    assert len(visits) >= 4 and all(visit[1] < 12345.0 for visit in visits)


# What it refuses


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda kit: shutil.rmtree(kit), "no kit in"),
        (lambda kit: (kit / "plan.json").write_text("{"), "damaged"),
        (lambda kit: (kit / "plan.json").write_text("[]"), "format 1"),
        (lambda kit: (kit / "plan.json").write_text('{"format": 1}'), "lacks 'kit'"),
        (lambda kit: (kit / "models" / "0000.onnx").unlink(), "0000.onnx"),
        (lambda kit: (kit / "models" / "0001.onnx").write_bytes(b"no model"), "cannot load"),
        (lambda kit: (kit / "models" / "weights.bin").unlink(), "cannot load"),
        (lambda kit: (kit / "models" / "input.bin").write_bytes(b"1234"), "input.bin is missing or damaged"),
    ],
)
def test_a_kit_that_did_not_arrive_whole_is_refused_in_one_line(copy, tmp_path, spoil, says):
    spoil(copy)
    assert says in refused(copy, "--out", tmp_path / "t.json")


@pytest.mark.parametrize("package", ["numpy", "onnxruntime"])
def test_a_missing_package_is_named_with_the_next_move(small, package):
    assert f"{package} is missing here" in (said := refused(small, blocked=(package,))) and "pip install" in said


def test_an_out_file_that_cannot_be_written_is_one_line(small, tmp_path):
    (tmp_path / "file").write_text("")
    assert "failed" in refused(small, "--out", tmp_path / "file" / "t.json")


def test_two_runs_of_one_kit_do_not_time_each_other(copy, tmp_path):
    with open(copy / "plan.json") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another run" in refused(copy, "--out", tmp_path / "t.json")


# When which network is timed

PLAN = {"passes": 2, "max_passes": 4, "disagree": 1.08, "seed": 3}


def visited(module, count, medians, seed=0) -> list:
    visits: list = []
    for net in module.order(count, visits, PLAN | {"seed": seed}):
        visits.append([net, medians(net, len(visits)), 0.0, 1.0, 0.0])
    return visits


def test_every_network_is_visited_at_two_moments_in_another_order(module):
    nets = [visit[0] for visit in visited(module, 9, lambda net, _: 1.0)]
    assert sorted(nets[:9]) == sorted(nets[9:]) == list(range(9)) and len(nets) == 18 and nets[:9] != nets[9:]


def test_only_disagreeing_networks_are_visited_again_and_not_for_ever(module):
    visits = visited(module, 5, lambda net, turn: 1.0 + (net == 2) * turn)
    assert [visit[0] for visit in visits[10:]] == [2, 2]


def test_order_goes_on_where_it_was_cut(module):
    whole = visited(module, 7, lambda net, _: 1.0, seed=3)
    for cut in range(len(whole)):
        visits = list(whole[:cut])
        for net in module.order(7, visits, PLAN):
            visits.append([net, 1.0, 0.0, 1.0, 0.0])
        assert visits == whole


def test_other_processes_are_seen(module):
    """A busy loop beside it, on a core of its own choice, shows as about one core; it may have to share."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            time.sleep(0.2)
            assert module.others_load(sorted(os.sched_getaffinity(0))) > 0.3
        finally:
            child.kill()


def test_a_device_without_proc_is_timed_all_the_same(module, monkeypatch):
    monkeypatch.setattr(module, "read_text", lambda path: "")
    assert module.others_load([0]) is None and module.governor([0]) == "unknown" and module.cpu()


def test_a_boards_name_goes_before_its_processors(module, monkeypatch):
    told = {"/proc/device-tree/model": "Board 4", "/proc/cpuinfo": "model name\t: Core X\n"}
    monkeypatch.setattr(module, "read_text", lambda path: told.get(path, ""))
    assert module.cpu() == "Board 4"
    del told["/proc/device-tree/model"]
    assert module.cpu() == "Core X"


def test_activations_stay_numbers_on_the_stored_weights(module, small):
    """Infinite or denormal activations would be timed at another speed."""
    plan = module.read_plan(small)
    for name in plan["models"]:
        session = module.open_model(small / name, 1)
        (z,) = session.run(None, module.read_input(small, plan, session))
        assert np.isfinite(z).all() and 1e-6 < np.abs(z).max() < 1e6
