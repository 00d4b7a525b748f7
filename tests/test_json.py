"""`--json` of every command: one document on stdout with the facts of the text, and nothing else there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgemeta.cli import COMMANDS, main
from edgemeta.stages import web_runtime
from tests.blobs import blob_pool

SPACE = ["--space=tiny", "--in-shape=1,12,12"]
TASK = [*SPACE, "--data=npz", "--device=null", "--way=4", "--rungs=3,9", "--eval-episodes=10", "--workers=1"]
TASK += ["--trials=3", "--latency-ms=0.06", "--root=blobs.npz", "--cache=cache"]
SHORT = ["--episodes=3", "--test-episodes=4"]
RUN, BUNDLE = "--run=run", "--bundle=run/bundle"
SAME = [BUNDLE, "--state=s.npz"]
ARGUMENTS = {  # in order: later ones use what earlier ones leave
    "search": [RUN, *TASK],
    "train": [RUN, "--workers=1", *SHORT, "--learners=protonet"],
    "export": [RUN, "--node=node"],
    "report": [RUN],
    "profile": [RUN, *SPACE, "--nets=2"],
    "import": ["--format=timings", "mine.csv", *SPACE, "--device=board", "--out=b.json"],
    "devices": [],
    "pick": ["--run=picked", "--device=null", "--images=teach"],
    "bench": [BUNDLE],
    "enroll": [*SAME, "--images=teach"],
    "predict": [*SAME, "--images=ask", "--unknown"],
    "serve": ["run/bundle", "--out=page"],
    "demo": ["--run=demo", *TASK, *SHORT, "--learners=protonet"],
}
KEYS = {  # of each document, beside `command`
    "search": "device ranking refused chosen bundle precision",
    "train": "picks weights episodes tests",
    "export": "bundles precision node",
    "report": "report",
    "profile": "profile device runtime threads precision measured_on doubts operators networks",
    "import": "device profile space networks batch fastest_ms slowest_ms doubts source",
    "devices": "devices",
    "pick": "device choices chosen refused bundle precision state notes",
    "bench": "graphs inference_ms predicted_ms manifest_ms cap_ms holds device threads runtime measured_on",
    "enroll": "images skipped state keep examples",
    "predict": "answers skipped unknown folders",
    "serve": "page",
    "demo": "search train export on_device report",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with data to train on, images to teach and to ask about, and timings taken by hand."""
    root = tmp_path_factory.mktemp("json")
    pool, few = blob_pool(classes=25, seed=0), blob_pool(classes=3, seed=7)
    np.savez(root / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(25), 10))
    for name, positions in zip("abc", few.by_class, strict=True):
        for part, chosen in (("teach", positions[:4]), ("ask", positions[4:])):
            (root / part / name).mkdir(parents=True)
            for i in chosen:
                Image.fromarray(few.x[i, 0].numpy()).save(root / part / name / f"{i}.png")
    (root / "teach" / "a" / "broken.png").write_bytes(b"no image")
    (root / "mine.csv").write_text("arch,ms\n0.0.0.0.0.0.0.0.0.0,0.1\n1.1.0.0.0.0.0.0.0.0,0.2\n")
    return root


def told(place: Path, capfd, monkeypatch, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, those of its processes included."""
    monkeypatch.chdir(place)
    return main(arguments), *capfd.readouterr()


def test_every_command_has_a_case():
    assert set(ARGUMENTS) == set(KEYS) == set(COMMANDS)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("command", ARGUMENTS)
def test_stdout_is_one_document(place, capfd, monkeypatch, command):
    if command == "serve" and web_runtime.present() is None:
        pytest.skip("no onnxruntime-web here; `make web` fetches it")
    code, out, err = told(place, capfd, monkeypatch, command, *ARGUMENTS[command], "--json")
    assert code == 0, err
    found = json.loads(out, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    assert found.pop("command") == command and set(found) == set(KEYS[command].split())


def test_facts_are_those_of_the_text(place, capfd, monkeypatch):
    _, text, _ = told(place, capfd, monkeypatch, "predict", *SAME, "--images=ask")
    _, out, _ = told(place, capfd, monkeypatch, "predict", *SAME, "--images=ask", "--json")
    answers = json.loads(out)["answers"]
    lines = [line.split("\t") for line in text.splitlines()]
    assert lines == [[own["image"], own["class"], f"{own['probability']:.3f}"] for own in answers] and len(lines) > 5
    _, text, _ = told(place, capfd, monkeypatch, "devices")
    _, out, _ = told(place, capfd, monkeypatch, "devices", "--json")
    assert [row["name"] for row in json.loads(out)["devices"]] == [line.split()[0] for line in text.splitlines()[2:]]
    _, out, _ = told(place, capfd, monkeypatch, "export", RUN, "--json")
    _, text, _ = told(place, capfd, monkeypatch, "export", RUN)
    for own in json.loads(out)["bundles"]:
        assert own["bundle"] in text and f"{own['flash_kib']:.2f}" in text
        costs = {row["cost"]: row for row in own["costs"]}
        assert costs["latency_ms"]["cap"] == 0.06 and costs["latency_ms"]["holds"] is True
        assert costs["ram_kib"]["cap"] is None and costs["ram_kib"]["holds"] is None


def test_an_error_stays_one_line(place, capfd, monkeypatch):
    code, out, err = told(place, capfd, monkeypatch, "bench", "--bundle=absent", "--json")
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith("edgemeta: absent")
