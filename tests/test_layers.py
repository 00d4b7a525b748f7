"""The import rule holds here, and the checker finds each kind of violation where one is planted."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tools.check_layers import MAX_LINES, check

ROOT = Path(__file__).resolve().parents[1]


def plant(root: Path, path: str, text: str) -> list[str]:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
    return check(root)


def test_this_checkout_keeps_the_rule():
    assert check(ROOT) == []


@pytest.mark.parametrize("folder", ["space", "data", "nets", "learners", "latency", "search", "lowering"])
def test_the_first_file_of_a_folder_names_its_modules(folder):
    said = ast.get_docstring(ast.parse((ROOT / "edgemeta" / folder / "__init__.py").read_text()))
    modules = {path.stem for path in (ROOT / "edgemeta" / folder).glob("*.py")} - {"__init__"}
    assert set(re.findall(r"`(\w+)`", said or "")) == modules


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("edgemeta/space/ops.py", "import math\nfrom edgemeta.nets import build\n"),
        ("edgemeta/space/ops.py", "\nfrom edgemeta.data.episode import draw\n"),
        ("edgemeta/types.py", "\nimport edgemeta.pipeline\n"),
        ("edgemeta/__init__.py", "\nfrom edgemeta import cli\n"),
        ("edgemeta/nets/build.py", "\nfrom ..learners import anil\n"),
        ("edgemeta/nets/build.py", "def lazy():\n    from edgemeta.search import run\n"),
        ("edgemeta/nets/build.py", "import importlib\nimportlib.import_module('edgemeta.report.page')\n"),
        ("edgemeta/pipeline.py", "\nfrom edgemeta.cli import main\n"),
        ("edgemeta/space/ops.py", "\nfrom edgemeta.novelty import thing\n"),
        ("edgemeta/search/run.py", "\nimport onnx\n"),
        ("edgemeta/latency/table.py", "\nfrom onnxruntime import InferenceSession\n"),
        ("edgemeta/latency/measure.py", "\nimport onnxscript\n"),
        ("edgemeta/nets/build.py", "\nimport matplotlib.pyplot as plt\n"),
        ("export/python/device.py", "\nimport torch\n"),
        ("export/python/device.py", "\nfrom edgemeta.types import Op\n"),
    ],
)
def test_a_planted_import_is_found_with_its_line(tmp_path, path, text):
    found = plant(tmp_path, path, text)
    assert len(found) == 1 and found[0].startswith(f"{path}:2: "), found


def test_a_part_without_a_row_is_found_once(tmp_path):
    text = "from edgemeta.types import Op\nfrom edgemeta.space import ops\n"
    assert [line.split(" ")[0] for line in plant(tmp_path, "edgemeta/novelty/thing.py", text)] == [
        "edgemeta/novelty/thing.py:1:"
    ]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("edgemeta/contracts.py", "from edgemeta.types import Op\n"),
        ("edgemeta/cli.py", "from edgemeta import __version__, pipeline\n"),
        ("edgemeta/space/moves.py", "from .space import Space\nfrom ..types import Arch\n"),
        ("edgemeta/latency/measure.py", "import onnx, onnxruntime\n"),
        ("edgemeta/lowering/to_onnx.py", "from onnxscript import opset17\nfrom edgemeta.latency import onnx_net\n"),
        ("edgemeta/report/plots.py", "import matplotlib\n"),
        ("export/python/device.py", "import numpy, onnxruntime\nimport edgemeta_device\n"),
        ("tools/bench/peers.py", "import torch, onnx\nfrom edgemeta import pipeline\n"),
    ],
)
def test_what_the_rule_allows_is_left_alone(tmp_path, path, text):
    assert plant(tmp_path, path, text) == []


@pytest.mark.parametrize("folder", ["edgemeta/space", "export/python", "tools/bench", "tests/space"])
def test_a_file_past_the_ceiling_is_found(tmp_path, folder):
    assert plant(tmp_path, f"{folder}/long.py", "x = 1\n" * MAX_LINES) == []
    assert len(plant(tmp_path, f"{folder}/long.py", "x = 1\n" * (MAX_LINES + 1))) == 1
