"""The C that emx-onnx-cgen writes, taken apart: constants, helpers, one function per node, and the calls in order.

emx-onnx-cgen (Apache-2.0) compiles more than two hundred operators to C that is right and reads well. Three things
it leaves to others: every intermediate tensor has memory of its own, all of it on the stack; constants are kept once
for each graph; and its convolution takes 18 instructions per multiply-accumulate on a Cortex-M4 at -O2. So its text
is read here and `c_graph` writes it anew: tensors in one planned piece of memory, constants shared, convolutions by
export/c/em_conv.c. What is not understood is refused, for nothing may be lost on the way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import onnx

from edgemeta.errors import BadBundle

BYTES = {"float": 4, "double": 8, "bool": 1, "int8_t": 1, "uint8_t": 1, "int32_t": 4, "int64_t": 8}
INSTALL = "pip install 'edgemeta[c]'"
_ARRAY = re.compile(r"(const )?(\w+) (\w+)((?:\[(?:restrict )?\d+\])+)")
_BLOCK = re.compile(r"^/\*\n \* (Weight|Node) \d+:\n(.*?)^ \*/\n", re.MULTILINE | re.DOTALL)
_WEIGHT = re.compile(r"^const EMX_UNUSED (.*?) = \{\n?(.*?)\n?\};\n", re.MULTILINE | re.DOTALL)
_HELPER = re.compile(r"^static inline \w+ (\w+)\(.*?^\}\n", re.MULTILINE | re.DOTALL)
_FUNCTION = re.compile(r"^EMX_NODE_FN void (\w+)\((.*?)\) \{\n(.*?)^\}\n", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"^void (\w+)\(([^()]*)\) \{\n(.*?)^\}\n", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"^    (\w+)\((.*)\);$")
_TOLD = re.compile(r"^ \* (OpType|Name): (.*)$", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^ \*   (\w+): (.*)$", re.MULTILINE)


class Array(NamedTuple):
    """A C array: element type and sizes."""

    name: str
    kind: str
    dims: tuple[int, ...]
    const: bool = False

    @property
    def size(self) -> int:
        """In bytes."""
        return BYTES[self.kind] * math.prod(self.dims)

    def declared(self) -> str:
        """As a variable is declared, without its `const`."""
        return f"{self.kind} {self.name}{''.join(f'[{size}]' for size in self.dims)}"


class Constant(NamedTuple):
    array: Array
    values: str


class Node(NamedTuple):
    """One operator: `text` is the C function that computes it, with what only this one needs."""

    op: str
    title: str  # its name in the ONNX graph
    attributes: Mapping[str, str]
    function: str
    parameters: tuple[Array, ...]
    text: str


class Call(NamedTuple):
    node: Node
    arguments: tuple[str, ...]

    def pairs(self) -> Iterator[tuple[Array, str]]:
        """(parameter, name of what is passed)"""
        return zip(self.node.parameters, self.arguments, strict=True)

    @property
    def reads(self) -> list[str]:
        return [argument for parameter, argument in self.pairs() if parameter.const]

    @property
    def writes(self) -> list[str]:
        return [argument for parameter, argument in self.pairs() if not parameter.const]


class Source(NamedTuple):
    """A compiled graph; `inputs` and `outputs` are in the graph's order."""

    includes: tuple[str, ...]
    helpers: Mapping[str, str]  # name -> definition
    constants: Mapping[str, Constant]
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    temporaries: Mapping[str, Array]
    calls: tuple[Call, ...]


def compiled(model: onnx.ModelProto, *, values: bool = True) -> Source:
    """The C of a graph of fixed sizes; an operator that emx-onnx-cgen does not know is refused by name.

    Without `values` constants have their sizes and lack their numbers, which are most of the text.
    """
    compiler, name = _compiler(values), model.graph.name
    try:
        text = compiler.compile(model)
    except Exception as error:  # its own errors, and whatever an operator that it half knows raises
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadBundle(
            f"{name}: emx-onnx-cgen does not compile it: {reason}; choose a learner of other operators with --learner"
        ) from error
    return parse(text)


def require() -> None:
    """Refuse where the compiler is not installed."""
    if find_spec("emx_onnx_cgen") is None:
        raise BadBundle(f"C needs emx-onnx-cgen, which is not installed here; {INSTALL}")


@lru_cache
def _compiler(values: bool) -> Any:
    """One for all graphs: it reads its templates once, which takes seconds."""
    require()
    from emx_onnx_cgen.compiler import Compiler, CompilerOptions

    plain = {"large_temp_threshold_bytes": 0, "large_weight_threshold": 0}  # no allocation, no file
    return Compiler(CompilerOptions(model_name="model", truncate_weights_after=None if values else 1, **plain))


def parse(text: str) -> Source:
    """Take the text of a compiled graph apart."""
    head, blocks = _blocks(text)
    entry = _ENTRY.search(blocks[-1][2] if blocks else "")
    if entry is None:
        raise _foreign("it has no function for the whole graph")
    constants = dict(_constant(body) for kind, _, body in blocks if kind == "Weight")
    helpers = head + "".join(body for kind, _, body in blocks if kind == "Weight")
    nodes = {node.function: node for node in (_node(told, body) for kind, told, body in blocks if kind == "Node")}
    parameters = [_array(part) for part in entry[2].split(", ")]
    temporaries, calls = _statements(entry[3], nodes)
    return Source(
        tuple(line for line in head.splitlines() if line.startswith("#include")),
        {found[1]: _compared(found[0]) for found in _HELPER.finditer(helpers)},
        constants,
        tuple(array for array in parameters if array.const),
        tuple(array for array in parameters if not array.const),
        temporaries,
        calls,
    )


def _compared(helper: str) -> str:
    """The larger or smaller of two by a comparison: fmaxf is a call on cores that have no instruction for it. Where one
    is no number the second is taken."""
    return re.sub(r"\bf(max|min)f?\(a, b\)", lambda found: f"a {'>' if found[1] == 'max' else '<'} b ? a : b", helper)


def _blocks(text: str) -> tuple[str, list[tuple[str, str, str]]]:
    """What stands before the first comment, and (Weight or Node, comment, what follows up to the next)."""
    found = list(_BLOCK.finditer(text))
    ends = [*(match.start() for match in found), len(text)][1:]
    head = text[: found[0].start()] if found else text
    return head, [(match[1], match[2], text[match.end() : end]) for match, end in zip(found, ends, strict=True)]


def _constant(body: str) -> tuple[str, Constant]:
    found = _WEIGHT.match(body)
    if found is None:
        raise _foreign(f"a constant reads {body[:60]!r}")
    array = _array(found[1])
    return array.name, Constant(array, found[2])


def _node(told: str, body: str) -> Node:
    found = _FUNCTION.search(body)
    if found is None:
        raise _foreign(f"a node reads {body[:60]!r}")
    names = dict(_TOLD.findall(told))
    parameters = tuple(_array(part) for part in found[2].split(", "))
    unused = [p.name for p in parameters if not re.search(rf"\b{p.name}\b", found[3])]
    marked = "".join(f"    (void){name};\n" for name in unused)
    text = body[: found.start(3)] + marked + body[found.start(3) : found.end()]
    return Node(names["OpType"], names["Name"], dict(_ATTRIBUTE.findall(told)), found[1], parameters, text)


def _statements(body: str, nodes: Mapping[str, Node]) -> tuple[dict[str, Array], tuple[Call, ...]]:
    """The declarations and the calls of the function for the whole graph."""
    temporaries: dict[str, Array] = {}
    calls = []
    for line in body.splitlines():
        call, array = _CALL.match(line), _ARRAY.fullmatch(line.strip().removesuffix(";"))
        if call and call[1] in nodes:
            calls.append(Call(nodes[call[1]], tuple(call[2].split(", "))))
        elif array:
            temporaries[array[3]] = _array(array[0])
        else:
            raise _foreign(f"a line reads {line.strip()[:60]!r}")
    return temporaries, tuple(calls)


def _array(text: str) -> Array:
    found = _ARRAY.fullmatch(text.strip())
    if found is None or found[2] not in BYTES:
        raise _foreign(f"an array reads {text.strip()[:60]!r}")
    return Array(found[3], found[2], tuple(map(int, re.findall(r"\d+", found[4]))), bool(found[1]))


def _foreign(what: str) -> BadBundle:
    return BadBundle(f"the C of emx-onnx-cgen is not as expected: {what}; install the version of constraints.txt")
