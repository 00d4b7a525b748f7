"""The timer of bundles as a device starts it: two files, a bundle's graphs, and nothing of this project beside them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch

from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle, far
from edgemeta.lowering.manifest import Measured
from edgemeta.nets.build import build

BLOCKED = ("torch", "edgemeta", "onnx", "tqdm", "scipy", "pydantic")
START = "import runpy, sys; sys.modules.update(dict.fromkeys({blocked!r})); del sys.argv[0]; "
RUN = START + "sys.path.insert(0, sys.argv[0].rpartition('/')[0]); runpy.run_path(sys.argv[0], run_name='__main__')"


@pytest.fixture(scope="module")
def sent(tiny, tmp_path_factory) -> Path:
    """What goes to a device, unpacked."""
    learner = LEARNERS["protonet"](build(tiny.ops(tiny.arch([{"width": 4}, {"width": 4}]))))
    slow = learner.init(rng=torch.Generator().manual_seed(0))
    folder = tmp_path_factory.mktemp("timed")
    bundle.write(folder / "bundle", slow=slow, learner=learner, facts={})
    zipfile.ZipFile(BytesIO(far._packed(folder / "bundle", 1))).extractall(folder / "sent")
    return folder / "sent"


@pytest.fixture
def copy(sent, tmp_path) -> Path:
    return shutil.copytree(sent, tmp_path / "sent")


def started(folder: Path) -> subprocess.CompletedProcess:
    arguments = [folder / far.TIMER, folder, "--out", folder / "timings.json", "--seconds", "0.02"]
    command = [sys.executable, "-c", RUN.format(blocked=BLOCKED), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_graph_is_timed_and_progress_is_told(copy):
    done = started(copy)
    assert done.returncode == 0 and "progress 0 3" in done.stdout and "progress 3 3" in done.stdout
    measured = Measured.model_validate(json.loads((copy / "timings.json").read_text())["measured"])
    assert measured.body_ms and measured.threads == 1 and measured.runtime.startswith("onnxruntime ")


def test_a_graph_that_does_not_run_is_an_answer(copy):
    (copy / "classify.onnx").write_bytes(b"no model")
    assert started(copy).returncode == 0
    answer = json.loads((copy / "timings.json").read_text())
    assert "classify: " in answer["failed"] and "cannot load" in answer["failed"] and "measured" not in answer


@pytest.mark.parametrize("spoil", ["absent", "damaged", "newer"])
def test_a_plan_that_is_none_is_one_line(copy, spoil):
    plan = copy / "plan.json"
    if spoil == "absent":
        plan.unlink()
    else:
        plan.write_text("{" if spoil == "damaged" else json.dumps(json.loads(plan.read_text()) | {"format": 9}))
    done = started(copy)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and "plan.json" in done.stderr
