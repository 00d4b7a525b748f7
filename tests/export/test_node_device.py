"""The runtime for Node: every learner's golden answers, its commands, and what it refuses."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgemeta.config import default_cache
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle, int8
from edgemeta.stages import node
from tests.golden import SCALE, answers

NODE, INSTALLED = shutil.which("node"), default_cache() / "node" / "node_modules"
TESTS = Path(__file__).parent / "web"
pytestmark = [
    pytest.mark.skipif(NODE is None, reason="no node here; `make system-deps` installs it"),
    pytest.mark.skipif(
        not (INSTALLED / "onnxruntime-node").exists(), reason="no onnxruntime-node here; run `make node`"
    ),
]


@pytest.fixture(scope="module")
def service(bundles, tmp_path_factory) -> Path:
    """A folder as `edgemeta export --node` writes it, after `npm install`."""
    folder = tmp_path_factory.mktemp("node") / "service"
    for name, data in node.files(bundles("protonet").folder).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "node_modules").symlink_to(INSTALLED)
    return folder


@pytest.fixture
def command(service):
    def run(*arguments) -> subprocess.CompletedProcess:
        line = [NODE, node.DEVICE, *map(str, arguments)]
        return subprocess.run(line, cwd=service, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def photos(tmp_path, draw) -> Path:
    for name, several in draw(3).items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, image in enumerate(several):
            Image.fromarray(image).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def whole_numbers(bundles, draw, tmp_path_factory) -> Path:
    """A bundle whose body is int8."""
    case, folder = bundles("protonet"), tmp_path_factory.mktemp("int8") / "bundle"
    images = np.stack(sum(draw(4).values(), []))[:, None] * SCALE
    body = int8.quantise(case.learner.net, case.slow, images)
    return bundle.write(folder, slow=case.slow, learner=case.learner, facts={}, polarity="ink-high", body=body)


def test_every_learner_answers_as_torch(service, bundles, whole_numbers, runtime, draw, tmp_path):
    """And an int8 body as in Python."""
    shots = [(name, image) for name, several in draw(2).items() for image in several]
    queries = sum(draw(1, seed=1).values(), [])
    cases = []
    for learner in LEARNERS:
        case = bundles(learner)
        names, logits = answers(case.learner, case.slow, shots, queries)
        known = {"names": names, "logits": logits.tolist(), "queries": [_text(query) for query in queries]}
        shown = [(name, _text(image)) for name, image in shots]
        cases.append({"learner": learner, "folder": str(case.folder), "shots": shown, **known})
    device = runtime.Device(whole_numbers)
    device.enroll([image for _, image in shots], [name for name, _ in shots])
    own = {"learner": "int8", "folder": str(whole_numbers), "logits": device.logits(queries).tolist()}
    cases.append(cases[0] | own | {"tolerance": 1e-2})  # a pixel's last digit may be another step
    (tmp_path / "golden.json").write_text(json.dumps({"size": 12, "cases": cases}))
    settings = {"DEVICE": str(service / node.DEVICE), "GOLDEN": str(tmp_path / "golden.json")}
    line = [NODE, "--test", "--test-reporter=spec", str(TESTS / "device.test.mjs")]
    done = subprocess.run(line, env=os.environ | settings, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and f"pass {len(cases) + 2}" in done.stdout, done.stdout + done.stderr


def test_its_commands_teach_and_name(command, photos, tmp_path):
    state = ("--state", tmp_path / "state.json")
    taught = command("enroll", "bundle", photos, *state)
    assert taught.returncode == 0 and "3 classes: left, low, right" in taught.stdout, taught.stderr
    named = command("predict", "bundle", photos / "low", photos / "left" / "0.png", *state)
    rows = [line.split("\t") for line in named.stdout.splitlines()]
    assert [row[1] for row in rows] == ["low"] * 3 + ["left"] and all(0.3 < float(row[2]) <= 1 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "usage: "),
        (("predict", "bundle"), "usage: "),
        (("predict", "bundle", "page", "--loud"), "--loud"),
        (("predict", "page", "photo.png"), "no bundle in page"),
        (("predict", "bundle", "nowhere.png"), "nowhere.png does not exist"),
        (("predict", "bundle", "page"), "page holds no images"),
        (("enroll", "bundle", "bundle"), "bundle has no folders"),
        (("predict", "bundle", node.DEVICE), "cannot read image"),
    ],
)
def test_mistakes_are_one_line(command, arguments, says):
    done = command(*arguments)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_changed_graph_is_refused(service, command):
    graph = service / "bundle" / "adapt.onnx"
    kept = graph.read_bytes()
    graph.write_bytes(kept[:-1])
    done = command("predict", "bundle", "bundle")
    graph.write_bytes(kept)
    assert done.returncode == 2 and "adapt.onnx is not the file that was written with it" in done.stderr


def _text(image) -> str:
    return base64.b64encode(image.tobytes()).decode()
