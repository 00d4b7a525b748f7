"""A learner on features as a C99 program that infers and keeps learning in a few kilobytes, without an allocator.

The graphs are compiled by emx-onnx-cgen (extra `c`), laid out by `c_graph`, and driven by export/c/edgemeta_c.c.
Loops are loops in C: a learner of several steps is a graph before the first step and a graph of one step, for each
step unrolled takes as much flash again (25 steps of full-context embeddings: 2,115 nodes in place of 156).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import onnx

from edgemeta import files
from edgemeta.contracts import Learner, Params
from edgemeta.errors import BadBundle
from edgemeta.latency.onnx_net import to_onnx as body_to_onnx
from edgemeta.learners import LEARNERS
from edgemeta.learners.outer import steps_of
from edgemeta.lowering import c_golden, c_graph, to_onnx
from edgemeta.lowering.c_graph import Group, Place, Shared, Written
from edgemeta.lowering.c_source import Source, compiled
from edgemeta.lowering.manifest import Normalisation
from edgemeta.lowering.offsets import aligned
from edgemeta.lowering.trace import Sizes, trace
from edgemeta.nets.build import fold
from edgemeta.types import Op

MOST_WAY, MOST_ROWS = 255, 65535  # labels are bytes, rows are counted in two
PARAMETERS = {
    "body": "float *z",  # from the image that lies in its scratch memory
    "start": "const float *features, const float *onehot, void *kept, void *fast",
    "step": "const float *features, const float *onehot, const void *kept, void *fast",
    "classify": "const float *features, const void *fast, float *logits",
}
_MACROS = """\
typedef int32_t idx_t;

#ifdef __GNUC__
#define EM_NODE static __attribute__((noinline)) /* inlined they run no faster, and take ten times as long to compile */
#else
#define EM_NODE static
#endif
#ifndef EM_MARK
#define EM_MARK(node) ((void)0) /* after each node: to count what they take */
#endif
"""
HAND_WRITTEN = ("edgemeta_c.h", "edgemeta_c.c", "em_conv.h", "em_conv.c", "em_port.h", "em_port_host.c",
                "em_port_mps2.c", "em_selftest.c", "cortex_m.ld", "Makefile")  # fmt: skip
MADE = ("em_model.h", "em_model.c", "em_weights.c", "em_golden.h")
FILES = (*HAND_WRITTEN, *MADE)


class Memory(NamedTuple):
    """Bytes that the program takes, beside its stack."""

    body: int  # the arena during each of its calls, the image among it
    adapt: int
    classify: int
    state: int  # what the device has learned, the examples' features among it
    floor: int  # of the arena, were its tensors planned without any gap

    @property
    def arena(self) -> int:
        return max(self.body, self.adapt, self.classify)


class Program(NamedTuple):
    """The files of a folder, and what it takes."""

    files: Mapping[str, str]
    memory: Memory


def program(
    learner: Learner,
    slow: Params,
    graphs: Mapping[str, bytes],
    *,
    rows: int,
    way: int,
    normalisation: Normalisation,
    name: str,
    seed: int = 0,
) -> Program:
    """The program for up to `rows` examples of up to `way` classes. `name` says in its files what it was made of.

    `graphs` are the bundle's (body, adapt, classify): their answers on images that follow from `seed` come with the
    program, to hold its own against (em_selftest.c).
    """
    _refuse(learner, rows, way)
    slow = {key: value.detach() for key, value in slow.items()}
    models, steps = _models(learner, slow, Sizes(rows, way, 1))
    sources = {key: compiled(model) for key, model in models.items()}
    image, sources["body"] = sources["body"].inputs[0].name, c_graph.holding(sources["body"])
    shared, layout = Shared(), _layout(models["start"], sources["start"])
    written = {key: _written(key, models[key], source, layout, shared) for key, source in sources.items()}
    memory = _memory(learner, written, layout, rows, way)
    code = _code(name, sources, written, shared)
    values = "\n\n".join(["#include <stdint.h>", *(definition for _, definition in shared.constants()), ""])
    identity = hashlib.sha256("".join((code, values, str((rows, way, steps)))).encode()).hexdigest()[:8]
    places = {"image": written["body"].places[image], "fast": layout["fast"].size, "kept": layout["kept"].size}
    header = _header(name, identity, learner, normalisation, memory, places, (rows, way, steps))
    golden = c_golden.header(learner, graphs, rows=rows, way=way, seed=seed)
    shipped = {key: (files.resource("export") / "c" / key).read_text(encoding="utf-8") for key in HAND_WRITTEN}
    made = dict(zip(MADE, (header, code, values, golden), strict=True))
    return Program({**shipped, **made}, memory)


def body(ops: Sequence[Op]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """em_model.c of a network alone, to be counted: its constants, em_constant0 and so on, are anybody's. Also the ONNX
    nodes behind its EM_MARKs, and the names of the constants."""
    source, shared = c_graph.holding(compiled(body_to_onnx(ops, batch=1), values=False)), Shared()
    written = c_graph.write("body", PARAMETERS["body"], source, [], [Place("z", 0)], shared)
    return _code("a network", {"body": source}, {"body": written}, shared), written.nodes, shared.names


def _refuse(learner: Learner, rows: int, way: int) -> None:
    if not learner.on_features:
        others = ", ".join(name for name, make in LEARNERS.items() if make(learner.net).on_features)
        raise BadBundle(
            f"no C of {learner.name}: it adapts the body, whose gradients need megabytes; choose one of: {others}"
        )
    if not 2 <= way <= MOST_WAY or not way <= rows <= MOST_ROWS:
        raise BadBundle(
            f"no C for {rows} examples of {way} classes: classes are 2 to {MOST_WAY}, with one example each or more, "
            f"{MOST_ROWS} at most; change --c-way or --c-rows"
        )


def _models(learner: Learner, slow: Params, sizes: Sizes) -> tuple[dict[str, onnx.ModelProto], int]:
    """The graphs of fixed sizes, and how often `step` is run; one step is part of `start`."""
    traced, steps = trace(learner, slow, sizes), steps_of(learner, sizes.n)
    body = body_to_onnx(learner.net.ops, fold(learner.net.ops, slow), batch=1)
    models = {"body": body, "classify": to_onnx.classify(traced, slow)}
    if steps <= 1:
        return {**models, "start": to_onnx.unrolled(traced, slow, steps)}, 0
    start, step = to_onnx.apart(traced, slow)
    return {**models, "start": start, "step": step}, steps


def _layout(start: onnx.ModelProto, source: Source) -> dict[str, Group]:
    """Where fast and kept tensors lie behind one pointer each."""
    named = [(value.name, array) for value, array in zip(start.graph.output, source.outputs, strict=True)]
    return {kind: c_graph.group([pair for pair in named if pair[0].startswith(kind)]) for kind in ("fast", "kept")}


def _written(key: str, model: onnx.ModelProto, source: Source, layout: Mapping[str, Group], shared: Shared) -> Written:
    inputs = [_place(value.name, layout) for value in model.graph.input if source.inputs]
    outputs = [_place(value.name, layout) for value in model.graph.output]
    return c_graph.write(key, PARAMETERS[key], source, inputs, outputs, shared)


def _place(name: str, layout: Mapping[str, Group]) -> Place:
    """A tensor of a group, what comes after a fast one in its place, or one that has a pointer of its own."""
    own = name.replace("next.", "fast.", 1)
    for pointer, group in layout.items():
        if own in group.offsets:
            return Place(pointer, group.offsets[own])
    return Place(name, 0)


def _memory(
    learner: Learner, written: Mapping[str, Written], layout: Mapping[str, Group], rows: int, way: int
) -> Memory:
    """As edgemeta_c.c divides the arena, and em_state is laid out."""
    beside = aligned(4 * rows * way) + layout["kept"].size  # one-hot labels, and what is kept from step to step
    adapting = [graph for key, graph in written.items() if key in ("start", "step")]
    adapt = beside + max(graph.scratch_bytes for graph in adapting)
    least = beside + max(graph.floor_bytes for graph in adapting)
    floor = max(least, written["body"].floor_bytes, written["classify"].floor_bytes)
    state = aligned(-(-(7 + rows) // 4) * 4 + 4 * rows * learner.net.dim) + layout["fast"].size
    return Memory(written["body"].scratch_bytes, adapt, written["classify"].scratch_bytes, state, floor)


def _code(name: str, sources: Mapping[str, Source], written: Mapping[str, Written], shared: Shared) -> str:
    """All graphs in one file: what their nodes call, the nodes, and a function for each graph."""
    includes = sorted({line for source in sources.values() for line in source.includes})
    helpers = c_graph.merged(c_graph.used(source) for source in sources.values())
    parts = [
        f"/* {name}: written by edgemeta with emx-onnx-cgen. */",
        "\n".join(['#include "em_model.h"', '#include "em_conv.h"', *includes]),
        _MACROS,
        "\n".join(declaration for declaration, _ in shared.constants()),
        *helpers.values(),
        *shared.functions(),
        *(graph.text for graph in written.values()),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _header(
    name: str,
    identity: str,
    learner: Learner,
    normalisation: Normalisation,
    memory: Memory,
    places: Mapping[str, int],
    sizes: tuple[int, int, int],
) -> str:
    rows, way, steps = sizes
    channels, height, width = learner.net.in_shape
    values = {
        "EM_ID": f"0x{identity}u /* of the graphs: a state of others is refused */",
        "EM_CHANNELS": channels,
        "EM_HEIGHT": height,
        "EM_WIDTH": width,
        "EM_SCALE": f"{float(normalisation.scale).hex()}f /* {normalisation.scale!r}, of a pixel */",
        "EM_INK_HIGH": f"{int(normalisation.polarity == 'ink-high')} /* bright strokes on a dark ground */",
        "EM_DIM": f"{learner.net.dim} /* features */",
        "EM_WAY": f"{way} /* classes */",
        "EM_ROWS": f"{rows} /* examples */",
        "EM_STEPS": f"{steps} /* of em_graph_step after em_graph_start */",
        "EM_FAST_BYTES": places["fast"],
        "EM_KEPT_BYTES": places["kept"],
        "EM_IMAGE_OFFSET": f"{places['image']} /* of the image in the arena, in bytes */",
        "EM_ARENA_BYTES": f"{memory.arena} /* embed {memory.body}, adapt {memory.adapt}, classify {memory.classify} */",
    }
    macros = "\n".join(f"#define {key} {value}" for key, value in values.items())
    functions = "\n".join(
        f"void em_graph_{key}(void *scratch, {PARAMETERS[key]});" for key in PARAMETERS if steps or key != "step"
    )
    guard = f"/* {name}, {learner.name}: written by edgemeta. */\n#ifndef EM_MODEL_H\n#define EM_MODEL_H"
    return "\n\n".join([guard, "#include <stdint.h>", macros, functions, "#endif\n"])
