"""The fenced blocks of a page, and what a reader does with each language: run it, save it, or read it.

Sybil finds the blocks, the invisible ones in comments and the skips; what stands here is what to do with them.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sybil import Document, Example, Region
from sybil.evaluators.python import pad
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, FencedCodeBlockLexer

INFO = re.compile(r'(?P<language>[\w+-]+)(?: +title="(?P<title>[^"]+)")?')
SKIP = re.compile(r"^<!--+ *skip: *(next|start)(?: +(?P<reason>.*?))? *--+>", re.MULTILINE)
SHELL = ["bash", "-euo", "pipefail"]


class Block(NamedTuple):
    language: str
    title: str | None  # the file that it is saved as
    text: str
    line_offset: int  # of the text in the block
    hidden: bool


def blocks(document: Document) -> Iterator[Region]:
    """A region for every fence, named language or not, and for every invisible block."""
    for region in _lexed(document):
        info = region.lexemes.get("language", region.lexemes.get("arguments"))
        known = INFO.fullmatch(info.strip())
        line = document.text.count("\n", 0, region.start) + 1
        assert known, f"{document.path}:{line}: ```{info}: give a language, and at most a title"
        source = region.lexemes["source"]
        hidden = "language" not in region.lexemes
        region.parsed = Block(known["language"], known["title"], str(source), source.line_offset, hidden)
        region.evaluator = evaluate
        yield region


def _lexed(document: Document) -> Iterable[Region]:
    yield from FencedCodeBlockLexer(language=".*")(document)
    yield from DirectiveInHTMLCommentLexer("invisible-code-block", arguments=".+")(document)


def evaluate(example: Example) -> None:
    """What a reader does with a block, in the folder that the page's blocks share."""
    block, reader = example.parsed, example.namespace["reader"]
    if block.title:
        path = Path(reader.folder / block.title)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    elif block.language in RULES:
        RULES[block.language](example)
    else:
        raise AssertionError(f"{where(example)}: nothing is done with {block.language!r}; give it a title or a skip")


def _run_python(example: Example) -> None:
    source = pad(example.parsed.text, example.line + example.parsed.line_offset)
    exec(compile(source, example.path, "exec", dont_inherit=True), example.namespace)


def _run_shell(example: Example) -> None:
    reader, block = example.namespace["reader"], example.parsed
    reader.need(block.text)
    script = reader.home / f"{Path(example.path).stem}-{example.line}.sh"
    script.write_text(block.text, encoding="utf-8")
    done = subprocess.run([*SHELL, str(script)], cwd=reader.folder, env=reader.environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # fmt: skip
    reader.told.append(done.stdout)
    if done.returncode:
        raise AssertionError(f"{where(example)}: exit code {done.returncode}\n{block.text}\n{done.stdout[-4000:]}")


RULES: dict[str, Callable[[Example], object]] = {
    "sh": _run_shell,
    "python": _run_python,
    "json": lambda example: json.loads(example.parsed.text),
    "toml": lambda example: tomllib.loads(example.parsed.text),
    "text": lambda example: example.namespace["reader"].hears(example.parsed.text),  # output
}


def where(example: Example) -> str:
    return f"{example.path}:{example.line}"


def skips(document: Document) -> list[str]:
    """The reasons of a page's skips, as they are written."""
    return [found["reason"] or "" for found in SKIP.finditer(document.text)]
