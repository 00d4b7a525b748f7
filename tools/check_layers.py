"""The import rule, read from the syntax tree: nothing is run, so this works on a bare Python.

    python tools/check_layers.py [root]

prints one line per violation and exits with 1, or prints nothing and exits with 0.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Import only from a lower row, or inside your own folder. The modules of row 0 count as one folder.
ROWS: tuple[tuple[str, ...], ...] = (
    ("types", "contracts", "errors", "config", "files", "processes", "ranges", "terminal"),
    ("space", "data"),
    ("nets", "learners"),
    ("latency", "tasks"),
    ("search", "lowering", "report"),
    ("stages",),
    ("pipeline",),
    ("cli", "integrations", "__main__"),
)
# Top-level package -> the parts of edgemeta/ that may import it.
HOMES: dict[str, tuple[str, ...]] = {
    "onnx": ("lowering/", "latency/measure.py", "latency/onnx_"),
    "onnxruntime": ("lowering/", "latency/measure.py"),
    "onnxscript": ("lowering/",),
    "onnx_ir": ("lowering/",),
    "matplotlib": ("report/", "data/glyph"),
}
DEVICE_SIDE_BLOCKED = ("torch", "edgemeta")
MAX_LINES = 400
_PACKAGE = "edgemeta"
_ROW = {part: row for row, parts in enumerate(ROWS) for part in parts}


class Import(NamedTuple):
    """One imported dotted name and the line it stands on."""

    line: int
    name: str


def check(root: Path) -> list[str]:
    """Every violation under a checkout, as `path:line: what is wrong`."""
    found: list[str] = []
    for folder in ("edgemeta", "export", "tools", "tests"):
        for path in sorted((root / folder).rglob("*.py")):
            relative, text = path.relative_to(root), path.read_text(encoding="utf-8")
            lines = text.count("\n")
            if lines > MAX_LINES:
                found.append(f"{relative}:{lines}: {lines} lines, the ceiling is {MAX_LINES}; split by subject")
            if folder == "edgemeta" and (part := _part(relative)) not in _ROW:
                found.append(f"{relative}:1: {part} stands in no row; give it one in tools/check_layers.py")
            elif folder in ("edgemeta", "export"):
                rule = _library if folder == "edgemeta" else _device_side
                imports = _imports(ast.parse(text, str(relative)), relative)
                found += [f"{relative}:{i.line}: {wrong}" for i in imports if (wrong := rule(relative, i.name))]
    return found


def _library(path: Path, name: str) -> str | None:
    """What is wrong with `path`, a module of edgemeta/, importing `name`; None where nothing is."""
    top, *rest = name.split(".")
    if top == _PACKAGE:
        return _rows(_part(path), rest[0]) if rest else None
    inside = path.relative_to(_PACKAGE).as_posix()
    if top in HOMES and not inside.startswith(HOMES[top]):
        return f"imports {top}, whose place is {', '.join(HOMES[top])}"
    return None


def _rows(source: str, target: str) -> str | None:
    if source == target or target.startswith("__"):
        return None
    if target not in _ROW:
        return f"imports {target}, which stands in no row; give it one in tools/check_layers.py"
    low, high = _ROW[target], _ROW[source]
    if low < high or low == high == 0:
        return None
    return f"{source} (row {high}) imports {target} (row {low}); only lower rows or its own folder are allowed"


def _device_side(_path: Path, name: str) -> str | None:
    top = name.split(".")[0]
    return f"export/ runs on the device and must not import {top}" if top in DEVICE_SIDE_BLOCKED else None


def _part(path: Path) -> str:
    """edgemeta/space/ops.py -> space; edgemeta/cli.py -> cli; edgemeta/__init__.py -> types, as the lowest row."""
    part = path.parts[1].removesuffix(".py")
    return "types" if part == "__init__" else part


def _imports(tree: ast.AST, path: Path) -> Iterator[Import]:
    """Every import of a module, lazy ones included, with relative names made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _from(node, path)
        elif isinstance(node, ast.Call) and _function(node.func) in ("import_module", "__import__") and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield Import(node.lineno, first.value)


def _from(node: ast.ImportFrom, path: Path) -> Iterator[Import]:
    base = list(path.parent.parts)[: len(path.parent.parts) + 1 - node.level] if node.level else []
    module = ".".join([*base, *filter(None, [node.module])])
    if module == _PACKAGE:  # `from edgemeta import cli` names modules, not what a module holds
        yield from (Import(node.lineno, f"{module}.{alias.name}") for alias in node.names)
    else:
        yield Import(node.lineno, module)


def _function(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def main() -> int:
    """Check the checkout this file stands in, or the one named."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    found = check(root)
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
