"""The page's modules under Node, against what Python answers."""

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

from edgemeta import files
from edgemeta.stages import web_runtime
from tests.export.web_golden import logits, preprocess, write

PAGE = files.resource("export") / "web" / "page"
TESTS = Path(__file__).parent / "web"
NODE = shutil.which("node")
LEARNED = ("protonet", "maml-last", "mann")  # on features, on images, and as many steps as examples
SIZES = ((12, 12), (37, 20), (9, 5), (64, 1))  # (height, width) of pictures
NUMBERS = (1.0, 1 / 255, 0.5, 1e-5, 1.5e-7, 3e-4, 123456.0, 1e16, 2.5e17, 0.1 + 0.2)
pytestmark = pytest.mark.skipif(NODE is None, reason="no node here; `make system-deps` installs it")


def encoded(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


@pytest.fixture(scope="module")
def golden(draw, tmp_path_factory) -> Path:
    """A file of pictures, supports and queries, and of what Python makes of them."""
    folder = tmp_path_factory.mktemp("golden")
    tasks = [task(folder, name, draw) for name in LEARNED]
    numbers = [(repr(value), json.dumps(value)) for value in NUMBERS]
    record = {"bundles": tasks, "pictures": list(pictures()), "numbers": numbers}
    (folder / "golden.json").write_text(json.dumps(record))
    return folder / "golden.json"


def task(folder: Path, name: str, draw) -> dict:
    support, queries = (
        np.stack(sum(draw(each, seed=seed).values(), []))[:, None].astype(np.float32) / 255
        for each, seed in ((3, 1), (1, 2))
    )
    labels, where = np.repeat(np.arange(3), 3), write(folder, name, support)
    return {
        "folder": str(where),
        "size": support[0].size,
        "support": support.ravel().tolist(),
        "labels": labels.tolist(),
        "queries": queries.ravel().tolist(),
        "logits": logits(where, support, labels, queries).tolist(),
    }


def pictures():
    """Noise on light and on dark ground, in grey and colour, made larger and smaller, with the runtime's answer."""
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        for light in (False, True):
            for channels in (1, 3):
                for polarity in ("ink-high", "as-is"):
                    rgb = rng.integers(150 * light, 256 if light else 100, (height, width, 3)).astype(np.uint8)
                    rule = {"scale": 1 / 255, "polarity": polarity, "channels": channels, "height": 12, "width": 14}
                    yield {
                        "name": f"{height}x{width} {'light' if light else 'dark'} {channels} {polarity}",
                        "width": width,
                        "height": height,
                        "rgba": encoded(np.dstack([rgb, np.full((height, width), 255, np.uint8)])),
                        "rule": rule,
                        "x": encoded(preprocess(Image.fromarray(rgb), rule)),
                    }


def check(golden: Path, name: str, tmp_path: Path) -> None:
    """Run the tests of a module; their report is the failure's message."""
    settings = {"PAGE": str(PAGE), "GOLDEN": str(golden), "ORT": str(tmp_path)}
    quickly = ["--liftoff-only", "--test", "--test-reporter=spec"]  # wasm compiles in a second instead of five
    command = [NODE, *quickly, str(TESTS / f"{name}.test.mjs")]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0 and "pass 0" not in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["bundle", "images", "taught"])
def test_module(golden, tmp_path, name):
    check(golden, name, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(web_runtime.present() is None, reason="no onnxruntime-web here; `make web` fetches it")
def test_learner_in_wasm(golden, tmp_path):
    for name, data in (web_runtime.present() or {}).items():
        (tmp_path / name).write_bytes(data)
    check(golden, "learner", tmp_path)


def test_no_module_is_longer_than_the_ceiling():
    assert all(len(path.read_text().splitlines()) <= 400 for path in (*PAGE.iterdir(), *TESTS.iterdir()))
