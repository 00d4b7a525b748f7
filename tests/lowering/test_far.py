"""A bundle timed behind ssh: what the device answers is read with care."""

import json
import sys

import pytest
import torch

from edgemeta.errors import BadBundle, BadProfile
from edgemeta.latency import remote
from edgemeta.latency.remote import Target, Unreachable
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle, far
from edgemeta.nets.build import build
from tests.boards import board, server  # noqa: F401


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    learner = LEARNERS["protonet"](build(tiny.ops(tiny.arch([{"width": 4}, {"width": 4}]))))
    slow = learner.init(rng=torch.Generator().manual_seed(0))
    return bundle.write(tmp_path_factory.mktemp("far") / "bundle", slow=slow, learner=learner, facts={})


def test_a_bundle_is_timed_there_and_nothing_is_left(board, folder):  # noqa: F811
    measured = far.measure(folder, Target("board", python=sys.executable), progress=False, seconds=0.05)
    here = bundle.measure(folder)
    assert measured.keys() == here.keys() and measured["runtime"] == here["runtime"]
    assert all(measured[f"{graph}_ms"]["n"] >= 30 for graph in ("body", "adapt", "classify"))
    assert bundle.update_facts(folder, {}, measured=measured).costs.measured
    assert list((board.home / ".cache" / "edgemeta").iterdir()) == []


def test_a_graph_that_does_not_run_there_is_told(board, folder, monkeypatch):  # noqa: F811
    packed = remote.pack

    def spoiled(contents, *runners):
        return packed({**contents, "body.onnx": b"no model"}, *runners)

    monkeypatch.setattr(remote, "pack", spoiled)
    with pytest.raises(BadBundle, match="board cannot run the bundle: body: .*cannot load"):
        far.measure(folder, Target("board", python=sys.executable), progress=False)


def test_a_device_that_tells_nothing_has_gone_away(board, folder, tmp_path):  # noqa: F811
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    with pytest.raises(Unreachable, match="told nothing for 0.3 s"):
        far.measure(folder, Target("board", python=str(silent), timeout_s=0.3), progress=False)


GOOD = {"median_ms": 1.0, "iqr_ms": 0.1, "n": 30}
ABOUT = {"threads": 1, "runtime": "onnxruntime 1", "device": "d", "measured_on": "2026-01-01"}
TIMED = {"body_ms": GOOD, "adapt_ms": GOOD, "classify_ms": GOOD, **ABOUT}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"format": 1, "measured": {**TIMED, "threads": 2}}, "another bundle"),
        ({"format": 1, "measured": {**TIMED, "body_ms": None}}, "another bundle"),
        ({"format": 1, "measured": {**TIMED, "body_ms": {**GOOD, "median_ms": -1}}}, "median_ms"),
        ({"format": 1}, "neither timings"),
        ({"format": 2, "failed": "x"}, "format"),
        ([], "no timings"),
        ("x" * 2**21, "characters"),
    ],
)
def test_answers_beyond_belief_are_refused(folder, monkeypatch, answer, says):
    monkeypatch.setattr(remote, "done", lambda *work, **how: json.dumps(answer))
    with pytest.raises(BadProfile) as error:
        far.measure(folder, Target("board"))
    assert says in str(error.value) and "\n" not in str(error.value)
