"""The runner for onnxruntime-web, started as a user would. A session compiles for a while, so runs are few."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from edgemeta import files
from edgemeta.latency import kit as kits

RUNNER = files.resource("export") / "web" / "edgemeta_profile.mjs"
NODE = shutil.which("node")
QUICKLY = "--liftoff-only"  # compile without optimising: a session begins in a second instead of five
PACKAGE = json.loads((RUNNER.parent / "package.json").read_text())
MODULES = Path.home() / ".cache" / "edgemeta" / "web"
NETS = 3

pytestmark = pytest.mark.skipif(NODE is None, reason="no node here; `make system-deps` installs it")
INSTALLED = (MODULES / "node_modules" / "onnxruntime-web").is_dir()


def needs_runtime(test):
    test = pytest.mark.skipif(not INSTALLED, reason="no onnxruntime-web here; `make web` installs it")(test)
    return pytest.mark.slow(test)


def start(*arguments, **settings) -> subprocess.Popen:
    command = [NODE, QUICKLY, RUNNER, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


def run(*arguments, **settings) -> tuple[int, str, str]:
    process = start(*arguments, **settings)
    out, error = process.communicate(timeout=50)
    return process.returncode, out, error


def write_kit(folder: Path, space, *, precision="fp32", threads=1, **plan) -> Path:
    """A kit of three networks, with other settings than usual where given."""
    archs = [space.sample(rng=Random(seed)) for seed in range(NETS)]
    kits.write(folder, space, archs, seed=0, precision=precision, threads=threads)
    path = folder / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | plan))
    return folder


@pytest.fixture(scope="module")
def kit(tiny, tmp_path_factory):
    """Timings of no two moments agree to the last digit, so each network is timed as often as allowed."""
    return write_kit(tmp_path_factory.mktemp("kit"), tiny, passes=2, max_passes=4, disagree=1.0)


@pytest.fixture(scope="module")
def timed(kit, tmp_path_factory):
    out = tmp_path_factory.mktemp("timed") / "deeper" / "timings.json"
    code, shown, error = run(kit, "--out", out)
    assert (code, error) == (0, "")
    return out, shown


@needs_runtime
def test_timings_and_where_they_come_from(kit, timed):
    out, _ = timed
    data = json.loads(out.read_text())
    assert data["kit"] == json.loads((kit / "plan.json").read_text())["kit"]
    assert (data["format"], data["runtime"], data["finished"]) == (1, "onnxruntime-web", True)
    assert set(data["versions"]) == {"onnxruntime-web", "node"} and data["cpu"] and data["governor"]
    assert data["cores"] == os.cpu_count() and data["affinity"] == sorted(os.sched_getaffinity(0))
    assert data["load"] >= 0 and data["head_ms"] > 0 and data["measured_on"].count("-") == 2
    assert all(median > 0 and iqr >= 0 and reference > 0 for _, median, iqr, reference, _ in data["visits"])
    moments = [visit[-1] for visit in data["visits"]]
    assert moments == sorted(moments) and moments[-1] == data["spent_s"]
    assert list(out.parent.iterdir()) == [out]  # no temporary file is left


@needs_runtime
def test_every_network_in_another_order_each_time_and_again_where_timings_disagree(timed):
    nets = [visit[0] for visit in json.loads(timed[0].read_text())["visits"]]
    turns = [tuple(nets[i : i + NETS]) for i in range(0, len(nets), NETS)]
    assert len(turns) == 4 and all(sorted(turn) == list(range(NETS)) for turn in turns)
    assert len(set(turns)) > 1


@needs_runtime
def test_progress_is_told_in_whole_lines(timed):
    lines = [line.split() for line in timed[1].splitlines()]
    assert all(word == "progress" and int(done) <= int(total) == 2 * NETS for word, done, total in lines)
    assert lines[-1] == ["progress", "6", "6"]


@needs_runtime
def test_a_finished_run_is_not_run_again(kit, timed):
    before = timed[0].read_bytes()
    assert run(kit, "--out", timed[0]) == (0, "", "")
    assert timed[0].read_bytes() == before


@needs_runtime
@pytest.mark.parametrize("change", [{}, {"kit": "another"}], ids=str)
def test_an_unfinished_run_goes_on_unless_it_is_another(kit, timed, tmp_path, change):
    kept = json.loads(timed[0].read_text())
    kept |= {"finished": False, "visits": kept["visits"][:10]} | change
    (tmp_path / "t.json").write_text(json.dumps(kept))
    assert run(kit, "--out", tmp_path / "t.json", "--seconds", 0)[0] == 0
    visits = json.loads((tmp_path / "t.json").read_text())["visits"]
    assert (len(visits), visits[:10] == kept["visits"]) == ((1, False) if change else (11, True))


@needs_runtime
def test_int8_and_two_threads(tiny, tmp_path):
    folder = write_kit(tmp_path / "kit", tiny, precision="int8", threads=2)
    code, _, error = run(folder)
    assert (code, error) == (0, "")
    data = json.loads((folder / "timings.json").read_text())
    assert Counter(visit[0] for visit in data["visits"]).keys() == set(range(NETS)) and data["finished"]


@needs_runtime
def test_interrupting_keeps_what_was_timed(tiny, tmp_path):
    endless = write_kit(tmp_path / "kit", tiny, passes=100_000, max_passes=100_000)
    process = start(endless)
    assert process.stdout.readline().startswith("progress ")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=50)
    data = json.loads((endless / "timings.json").read_text())
    assert process.returncode == 130 and error.count("\n") == 1 and "start again" in error
    assert len(data["visits"]) > 1 and not data["finished"] and data["head_ms"] is None


@needs_runtime
def test_nobody_listening_is_an_interruption(tiny, tmp_path):
    process = start(write_kit(tmp_path / "kit", tiny, passes=100_000, max_passes=100_000))
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=50) == 130
    process.stderr.close()
    assert len(json.loads((tmp_path / "kit" / "timings.json").read_text())["visits"]) > 1


# Complaints: one line, exit code 2


def complaint(*arguments, **settings) -> str:
    code, shown, error = run(*arguments, **settings)
    assert (code, shown, error.count("\n")) == (2, "", 1)
    return error


def test_without_the_package_it_says_what_to_install(kit, tmp_path):
    error = complaint(kit, "--modules", tmp_path)
    version = PACKAGE["dependencies"]["onnxruntime-web"]
    assert f"npm install --prefix ~/.cache/edgemeta/web onnxruntime-web@{version}" in error
    assert error == complaint(kit, "--modules", tmp_path, env=os.environ | {"HOME": str(tmp_path)}, cwd=tmp_path)


def test_no_kit(tmp_path):
    assert "no kit in" in complaint(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"format": 2}', '{"format": 1, "kit": "x"}'])
def test_a_plan_that_is_none(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    assert "plan.json" in complaint(tmp_path)


@pytest.mark.parametrize("arguments", [("--seconds", "soon"), ("--loud",), ("another",)], ids=str)
def test_arguments_it_does_not_know(kit, arguments):
    assert complaint(kit, *arguments).strip()


@pytest.mark.parametrize("name", ["input.bin", "weights.bin"])
def test_a_file_that_is_gone_is_named_before_anything_is_timed(kit, tmp_path, name):
    folder = shutil.copytree(kit, tmp_path / "kit")
    (folder / "models" / name).unlink()
    assert f"{name} is missing" in complaint(folder)
    assert not (folder / "timings.json").exists()


@needs_runtime
def test_weights_that_are_cut_short(kit, tmp_path):
    folder = shutil.copytree(kit, tmp_path / "kit")
    (folder / "models" / "weights.bin").write_bytes(b"short")
    assert "cannot load" in complaint(folder)
