"""Every block of every page runs, in order, in a folder that the page's blocks share.

README alone by default; EDGEMETA_DOCS=all runs all pages, made short as well; EDGEMETA_DOCS=whole, as they stand.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from unittest import SkipTest

import pytest

pytest.importorskip("sybil", reason="sybil is not installed: pip install -e '.[test]'")

from sybil import Document
from sybil.evaluators.skip import Skipper
from sybil.parsers.markdown import SkipParser

from edgemeta.learners import evaluate, train
from tests.docs import blocks, short
from tests.docs.reader import Reader

ROOT = Path(__file__).resolve().parents[2]
ALWAYS, CHINESE = ["README.md"], "README.zh-CN.md"  # the second has the blocks of the first
REST = ["CONTRIBUTING.md", *(f"{name}/README.md" for name in ("export", "profiles", "tools"))]
PAGES = [*ALWAYS, *REST, *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
ASKED = os.environ.get("EDGEMETA_DOCS", "")
SHORTER_S = 600 if ASKED != "whole" else 7200

ONE_THREAD = {**os.environ, **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}}

# Blocks that run nowhere here, and why. A new one is a decision: it is written on the page and here.
SKIPS: dict[str, list[str]] = {
    "tools/README.md": ['"benchmarks take hours"', '"the end of a script"'],
    "docs/nni.md": [
        'if(not found("nni"), "NNI is not installed here; `make nni` has it")',
        '"changes the firewall of the machine"',
    ],
    "docs/results.md": ['"benchmarks take minutes to hours"'],
    "docs/scale.md": ['if(not has("optuna-dashboard"), "optuna-dashboard is not installed here")'],
    "docs/mobile.md": ['"Android: no Gradle and no device here"', '"iOS: no Xcode here"'],
}


def parsed(page: str) -> Document:
    return Document.parse(str(ROOT / page), blocks.blocks, SkipParser())


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """What all pages may use that is made once."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def warm(tmp_path_factory):
    """The socket of the process that answers `edgemeta`."""
    address = str(tmp_path_factory.mktemp("warm") / "socket")
    command = [sys.executable, "-m", "tests.docs.warm", address]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ONE_THREAD) as process:
        assert process.stdout.readline() == b"ready\n"
        yield address
        process.stdin.close()


@pytest.fixture
def reader(tmp_path, shared, warm, monkeypatch):
    with ExitStack() as stack:
        made = Reader(tmp_path, stack, whole=ASKED == "whole", shared=shared, warm=warm)
        monkeypatch.chdir(made.folder)
        monkeypatch.setattr(sys, "path", [*sys.path])
        before = set(sys.modules)
        yield made
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(made.folder)):
                del sys.modules[name]


@pytest.fixture
def shorter(monkeypatch):
    """Python of a page trains and tests for moments."""
    if ASKED != "whole":
        monkeypatch.setattr(train, "train", short.training(train.train))
        for function in (evaluate.evaluate, evaluate.grid, evaluate.by_class):
            monkeypatch.setitem(function.__kwdefaults__, "episodes", 4)


@pytest.mark.slow
@pytest.mark.timeout(SHORTER_S)
@pytest.mark.parametrize("page", PAGES if ASKED in ("all", "whole") else ALWAYS)
def test_every_block_of_the_page_runs(page, reader, shorter):
    document = parsed(page)
    known = {"reader": reader, "provoke": reader.provoke, "has": shutil.which, "found": find_spec}
    document.namespace.update(known, __name__="__main__")
    ran, skipped = 0, []
    for example in document.examples():
        try:
            example.evaluate()
            ran += not isinstance(example.region.evaluator, Skipper)
        except SkipTest as reason:
            skipped.append(f"{blocks.where(example)}: {reason}")
    print("\n".join(skipped))
    assert ran or skipped or not list(document.examples())


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_its_rule(page):
    """A language that nothing is done with, a mistyped title or a comment that is none would be found only when run."""
    for example in parsed(page).examples():
        if isinstance(example.parsed, blocks.Block):
            block = example.parsed
            assert block.title or block.language in blocks.RULES, blocks.where(example)


def test_the_chinese_readme_has_the_same_blocks():
    """Word for word, but for the remarks behind them."""
    ours, theirs = (
        [
            (block.language, block.title, [line.partition("#")[0].rstrip() for line in block.text.splitlines()])
            for example in parsed(page).examples()
            if isinstance(block := example.parsed, blocks.Block) and not block.hidden
        ]
        for page in (*ALWAYS, CHINESE)
    )
    assert ours == theirs


def test_skips_are_known():
    found = {page: reasons for page in PAGES if (reasons := blocks.skips(parsed(page)))}
    assert found == SKIPS
