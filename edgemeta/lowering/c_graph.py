"""A graph as C with its tensors in one planned piece of memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from edgemeta.lowering.c_source import BYTES, Array, Call, Constant, Node, Source
from edgemeta.lowering.offsets import Span, aligned, floor, plan

# Each element of the output follows from the elements of the inputs in its place, or along one axis that is read
# before it is written: the output may lie where an input lay that nothing reads any more.
UNARY = ("Abs", "Exp", "Log", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sign", "Sqrt", "Tanh", "LogSoftmax", "Softmax")
IN_PLACE = frozenset((*UNARY, "Add", "Clip", "Div", "Identity", "Max", "Min", "Mul", "Pow", "Sub", "Where"))
COPIES = frozenset(("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"))  # the same numbers in the same order
SCRATCH = "scratch"


class Group(NamedTuple):
    """Tensors that a caller keeps together: one pointer, and where behind it each of them lies, in bytes."""

    offsets: Mapping[str, int]
    size: int


class Written(NamedTuple):
    """A graph as C. `nodes` are the ONNX nodes behind its calls, in the order of their EM_MARK; `places` says where in
    the scratch memory a tensor lies."""

    text: str
    scratch_bytes: int
    floor_bytes: int  # the most bytes alive at once, which no plan can pass below
    nodes: tuple[str, ...]
    places: Mapping[str, int]


class Shared:
    """What several graphs have in common: equal constants are kept once, and so are nodes that do the same."""

    def __init__(self) -> None:
        self._constants: dict[tuple, str] = {}
        self._functions: dict[str, str] = {}  # definition, under the name @ -> name
        self._titles: dict[str, str] = {}  # name -> what its first node is

    def constant(self, constant: Constant) -> str:
        key = (constant.array.kind, constant.array.dims, constant.values)
        return self._constants.setdefault(key, f"em_constant{len(self._constants)}")

    def function(self, node: Node) -> str:
        text = re.sub(rf"\b{node.function}", "@", node.text).strip("\n").replace("EMX_NODE_FN", "EM_NODE")
        name = self._functions.setdefault(text, f"node{len(self._functions)}_{node.op.lower()}")
        self._titles.setdefault(name, node.title)
        return name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._constants.values())

    def constants(self) -> list[tuple[str, str]]:
        """(declaration, definition) of each."""
        found = []
        for (kind, dims, values), name in self._constants.items():
            array = f"const {Array(name, kind, dims).declared()}"
            found.append((f"extern {array};", f"{array} = {{\n{values}\n}};"))
        return found

    def functions(self) -> list[str]:
        return [f"/* {self._titles[name]} */\n" + text.replace("@", name) for text, name in self._functions.items()]


def group(arrays: Sequence[tuple[str, Array]]) -> Group:
    """Tensors one behind the other."""
    offsets, at = {}, 0
    for name, array in arrays:
        offsets[name] = at
        at += aligned(array.size)
    return Group(offsets, at)


def holding(source: Source) -> Source:
    """The same graph with its inputs in its own memory, where the caller puts them and later tensors follow them."""
    held = {array.name: array._replace(const=False) for array in source.inputs}
    return source._replace(inputs=(), temporaries={**held, **source.temporaries})


class Place(NamedTuple):
    """Where a graph's input or output lies: an offset in bytes behind one of the function's pointers."""

    pointer: str
    offset: int


def write(
    name: str, parameters: str, source: Source, inputs: Sequence[Place], outputs: Sequence[Place], shared: Shared
) -> Written:
    """The function em_graph_`name`, which computes in `scratch` and leaves its outputs where they belong."""
    calls, storage = _without_copies(source)
    storage = _in_place(source, calls, storage)
    spans, offsets = _lives(source, calls, storage)
    planned = plan(spans)
    places = {key: planned.offsets[at] for key, at in offsets.items()}
    lines = [f"void em_graph_{name}(void *{SCRATCH}, {parameters}) {{"]
    pointers = [SCRATCH, *re.findall(r"(\w+)(?:,|$)", parameters)]
    lines += [f"    (void){pointer};" for pointer in pointers]
    lines += _variables(source, calls, storage, places, inputs)
    for i, call in enumerate(calls):
        lines += _called(i, call, source, shared, places.get(_patch(i)))
        lines.append(f"    EM_MARK({i}); /* {call.node.title} */")
    for array, place in zip(source.outputs, outputs, strict=True):
        lines.append(f"    memmove((char *){place.pointer} + {place.offset}, {array.name}_out, {array.size});")
    titles = tuple(call.node.title for call in calls)
    return Written("\n".join([*lines, "}"]), planned.size, floor(spans), titles, places)


def used(source: Source) -> dict[str, str]:
    """The helpers that the nodes call, or that other such helpers do: name -> definition."""
    kept: dict[str, str] = {}
    texts = [call.node.text for call in source.calls if not _shape(call.node)]
    while texts:
        text = " ".join(texts)
        found = {name: body for name, body in source.helpers.items() if name not in kept and f"{name}(" in text}
        kept |= found
        texts = list(found.values())
    return {name: body for name, body in source.helpers.items() if name in kept}


Storage = dict[str, str]  # a tensor -> the one in whose memory it lies


def _without_copies(source: Source) -> tuple[list[Call], Storage]:
    """The calls but those that would copy one temporary to another, which become two names of one piece of memory."""
    own = {**source.temporaries, **{array.name: array for array in source.outputs}}
    calls, storage = list[Call](), {name: name for name in own}
    for call in source.calls:
        first, last = call.arguments[0], call.arguments[-1]
        same = first in own and last in own and (own[first].kind, own[first].size) == (own[last].kind, own[last].size)
        if call.node.op in COPIES and same:
            storage[last] = storage[first]
        else:
            calls.append(call)
    return calls, storage


def _in_place(source: Source, calls: Sequence[Call], storage: Storage) -> Storage:
    """Let outputs of elementwise nodes take over the memory of an input that is not read again."""
    storage, last = dict(storage), _last(source, calls, storage)
    for i, call in enumerate(calls):
        if call.node.op not in IN_PLACE or len(call.writes) != 1:
            continue
        (output,) = (array for array in call.node.parameters if not array.const)
        made = storage[call.writes[0]]
        for parameter, argument in call.pairs():
            if not parameter.const or argument not in storage or last[storage[argument]] != i:
                continue
            taken = storage[argument]
            others = [p.dims for p, other in call.pairs() if p.const and storage.get(other) == taken]
            if (parameter.kind, parameter.dims) == (output.kind, output.dims) and set(others) == {output.dims}:
                storage = {name: taken if kept == made else kept for name, kept in storage.items()}
                last[taken] = last[made]
                break
    return storage


def _last(source: Source, calls: Sequence[Call], storage: Storage) -> dict[str, int]:
    """The last call that each piece of memory is needed for; outputs are needed past the end."""
    last = {storage[argument]: i for i, call in enumerate(calls) for argument in call.arguments if argument in storage}
    return last | {storage[array.name]: len(calls) for array in source.outputs}


def _patch(i: int) -> str:
    return f"patch{i}"


def _lives(source: Source, calls: Sequence[Call], storage: Storage) -> tuple[list[Span], dict[str, int]]:
    """When each piece of memory is in use, and the position of each by name; convolutions have a patch besides. What is
    read and never written is there from the start."""
    own = {**source.temporaries, **{array.name: array for array in source.outputs}}
    written = {storage[argument] for call in calls for argument in call.writes}
    first = {storage[name]: 0 for call in calls for name in call.reads if storage.get(name, "") in {*own} - written}
    for i, call in enumerate(calls):
        for argument in call.writes:
            first.setdefault(storage[argument], i)
    last, spans, at = _last(source, calls, storage), list[Span](), dict[str, int]()
    for name, begin in first.items():
        size = max(own[other].size for other, kept in storage.items() if kept == name)
        at[name] = len(spans)
        spans.append(Span(size, begin, last.get(name, begin)))
    for i, call in enumerate(calls):
        if size := _patch_bytes(call.node):
            at[_patch(i)] = len(spans)
            spans.append(Span(size, i, i))
    return spans, at


def _variables(
    source: Source, calls: Sequence[Call], storage: Storage, places: Mapping[str, int], inputs: Sequence[Place]
) -> list[str]:
    """A pointer for each tensor that a call or a result needs."""
    needed = {argument for call in calls for argument in call.arguments} | {array.name for array in source.outputs}
    own = {**source.temporaries, **{array.name: array for array in source.outputs}}
    given = zip(source.inputs, inputs, strict=True)
    found = [*given, *((array, Place(SCRATCH, places[storage[name]])) for name, array in own.items() if name in needed)]
    return [_pointer(array, place, _local(array.name, source)) for array, place in found if array.name in needed]


def _pointer(array: Array, place: Place, name: str) -> str:
    """The variable `name`: a pointer to the first row of the array that lies there."""
    rest = "".join(f"[{size}]" for size in array.dims[1:])
    word = "const " if array.const else ""
    kind, variable = (f"(*){rest}", f"(*const {name}){rest}") if rest else ("*", f"*const {name}")
    at = f"({word}char *){place.pointer} + {place.offset}"
    return f"    {word}{array.kind} {variable} = ({word}{array.kind} {kind})({at});"


def _local(name: str, source: Source) -> str:
    """Inputs and outputs may be called like the function's own pointers."""
    if any(array.name == name for array in source.inputs):
        return f"{name}_in"
    return f"{name}_out" if any(array.name == name for array in source.outputs) else name


def _called(i: int, call: Call, source: Source, shared: Shared, patch: int | None) -> list[str]:
    """The call, or that of em_conv in its place."""
    known = source.constants
    arguments = [shared.constant(known[name]) if name in known else _local(name, source) for name in call.arguments]
    shape = _shape(call.node)
    if not shape:
        return [f"    {shared.function(call.node)}({', '.join(arguments)});"]
    x, weight, bias, y = arguments
    scratch = f"(float *)((char *){SCRATCH} + {patch})"
    floats = f"(const float *){x}, (const float *){weight}, {bias}, (float *){y}"
    return [
        f"    static const em_conv_shape shape{i} = {{{', '.join(map(str, shape))}}};",
        f"    em_conv({floats}, {scratch}, &shape{i});",
    ]


def _shape(node: Node) -> tuple[int, ...]:
    """The fields of em_conv_shape; () for a node that is no convolution of one image with a bias and even padding."""
    sizes = [parameter.dims for parameter in node.parameters]
    told = {name: json.loads(node.attributes.get(name, "[1, 1]")) for name in ("strides", "dilations")}
    top, left, *ends = json.loads(node.attributes.get("pads", "[0, 0, 0, 0]"))
    plain = node.op == "Conv" and [len(dims) for dims in sizes] == [4, 4, 1, 4] and sizes[0][0] == 1
    if not plain or {p.kind for p in node.parameters} != {"float"} or ends != [top, left]:
        return ()
    (_, channels, height, width), weight, _, out = sizes
    inside = (weight[1], height, width, *out[1:], *weight[2:])
    return (*inside, *told["strides"], *told["dilations"], top, left, channels // weight[1])


def _patch_bytes(node: Node) -> int:
    """What em_conv wants beside input and output, see em_conv.h."""
    shape = _shape(node)
    if not shape:
        return 0
    channels, height, width, out, _, _, high, wide, *_, top, left, groups = shape
    depthwise = channels == 1 and out == groups
    floats = (height + 2 * top) * (width + 2 * left) if depthwise else 2 * channels * high * wide
    return BYTES["float"] * floats


def merged(texts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Helpers of several graphs, each once."""
    return {name: body for helpers in texts for name, body in helpers.items()}
