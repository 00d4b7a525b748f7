"""The C of every learner on features: it builds without warnings, answers as ONNX Runtime does, takes what it says."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemeta.errors import BadBundle
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle, c_check, c_graph, c_source, to_c
from edgemeta.lowering.manifest import Costs, Normalisation

pytest.importorskip("emx_onnx_cgen", reason="extra `c` is not installed")
needs_cc = pytest.mark.skipif(bool(c_check.lacks(*c_check.HOST)), reason="no make or C compiler on this machine")
needs_arm = pytest.mark.skipif(
    bool(c_check.lacks(*c_check.ARM, c_check.EMULATOR)),
    reason="no arm-none-eabi-gcc or qemu-system-arm on this machine",
)
ROWS, WAY = 7, 3
SHAPE = Normalisation(channels=1, height=12, width=12, polarity="ink-high")
QUICK, SLOW = ("protonet", "anil"), ("matching", "matching-fce", "ridge", "lstm", "mann")
# Of the C library: what C99's string.h and math.h have, and no allocation, no input or output.
LIBRARY = {"memcpy", "memmove", "memset", "expf", "logf", "sqrtf", "powf", "tanhf", "fabsf"}


class Made(NamedTuple):
    program: to_c.Program
    folder: Path


@pytest.fixture(scope="module")
def make(make_trained, tmp_path_factory):
    """The program of a learner of some name, once."""
    known: dict[str, Made] = {}

    def made(name: str) -> Made:
        if name not in known:
            trained = make_trained(LEARNERS[name])
            sizes = {"rows": ROWS, "way": WAY, "normalisation": SHAPE}
            lowered = bundle.lower(trained.slow, trained.learner).items()
            graphs = {graph: model.SerializeToString() for graph, model in lowered}
            program = to_c.program(trained.learner, trained.slow, graphs, name="a test", **sizes)
            folder = tmp_path_factory.mktemp(name)
            for file, text in program.files.items():
                (folder / file).write_text(text)
            known[name] = Made(program, folder)
        return known[name]

    return made


def test_these_are_the_learners_on_features(make_trained):
    assert {*QUICK, *SLOW} == {name for name in LEARNERS if make_trained(LEARNERS[name]).learner.on_features}


@needs_cc
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_its_answers_are_those_of_onnx_runtime(name, make):
    """With address and undefined-behaviour sanitizers; examples are fewer than rows, and one class is forgotten."""
    program, folder = make(name)
    found = c_check.on_host(folder, sanitize=True)
    assert found["arena_bytes"] == program.memory.arena and found["state_bytes"] == program.memory.state
    assert program.memory.floor <= program.memory.arena <= 1.02 * program.memory.floor


@needs_arm
@pytest.mark.parametrize(("name", "core"), [("protonet", "m4"), ("anil", "m7"), ("protonet", "m3")])
def test_an_emulated_microcontroller_gives_the_same_answers(name, core, make):
    _, folder = make(name)
    found = c_check.emulated(folder, core)
    assert 0 < found["classify_instructions"] < found["adapt_instructions"] < found["body_instructions"]
    assert 0 < found["stack_bytes"] < 4096


@needs_arm
def test_counts_repeat_and_a_core_without_a_floating_point_unit_takes_more(make):
    _, folder = make("protonet")
    counts = [c_check.emulated(folder, core)["body_instructions"] for core in ("m4", "m4", "m3")]
    assert counts[0] == counts[1] < counts[2] / 3


@needs_arm
def test_weights_are_linked_once_and_figures_stand_beside_the_manifest(make, make_trained):
    program, folder = make("anil")
    trained = make_trained(LEARNERS["anil"])
    costs = Costs(graph_kib=8.0, adapt_ram_kib=bundle.adapt_ram_kib(trained.slow, trained.learner))
    figures = c_check.figures(program, folder, costs)
    body = [op for op in trained.net.ops if op.kind == "conv"]
    weights = sum(op.weight_bytes for op in body) + 4 * (trained.net.dim + 8)  # the head's row, rates and constants
    assert sum(op.weight_bytes for op in body) < 1024 * figures["flash_kib"]["weights"] <= weights + 64
    beside = figures["manifest"]["adapt_ram_kib"]
    assert beside["here"] == (program.memory.adapt + program.memory.state) / 1024 and beside["manifest"] > 0
    assert figures["emulated"]["instructions"]["body"] > 0 and figures["host"]["logits"] <= 1e-4


@needs_cc
def test_it_asks_nothing_of_the_c_library_but_memory_moves_and_mathematics(make):
    _, folder = make("anil")
    c_check.on_host(folder)
    objects = [folder / "build-host" / f"{part}.o" for part in ("edgemeta_c", "em_conv", "em_model", "em_weights")]
    told = subprocess.run(["nm", "-u", *objects], capture_output=True, text=True, check=True).stdout
    asked = {line.split()[-1] for line in told.splitlines() if " U " in line}
    assert {name for name in asked if not name.startswith("em_")} <= LIBRARY | {
        "__stack_chk_fail",
        "_GLOBAL_OFFSET_TABLE_",
    }


@needs_cc
def test_wrong_answers_are_told_and_nothing_is_believed(make, tmp_path):
    program, _ = make("protonet")
    for file, text in program.files.items():
        (tmp_path / file).write_text(text)
    weights = program.files["em_weights.c"]
    number = weights.index("0x1.")
    (tmp_path / "em_weights.c").write_text(weights[:number] + "0x9." + weights[number + 4 :])
    with pytest.raises(BadBundle, match=r"differ from ONNX Runtime's .*features by"):
        c_check.on_host(tmp_path)


def test_learners_that_change_the_body_are_refused(make_trained):
    trained = make_trained(LEARNERS["maml"])
    with pytest.raises(BadBundle, match=r"maml: it adapts the body.*one of: protonet, .*anil"):
        to_c.program(trained.learner, trained.slow, {}, rows=ROWS, way=WAY, normalisation=SHAPE, name="a test")


@pytest.mark.parametrize(("rows", "way"), [(2, 3), (25, 1), (300, 256), (70_000, 5)])
def test_sizes_out_of_range_are_refused(rows, way, anil):
    with pytest.raises(BadBundle, match="change --c-way or --c-rows"):
        to_c.program(anil.learner, anil.slow, {}, rows=rows, way=way, normalisation=SHAPE, name="a test")


def test_an_operator_that_no_compiler_knows_is_named():
    model = _model([helper.make_node("Loop", ["trips", "", "x"], ["y"], body=_empty_loop())])
    with pytest.raises(BadBundle, match=r"(?s)odd: emx-onnx-cgen does not compile it: .*Loop.*--learner") as error:
        c_source.compiled(model)
    assert "\n" not in str(error.value)


def test_without_the_extra_its_name_is_told(monkeypatch):
    monkeypatch.setattr(c_source, "find_spec", lambda name: None)
    with pytest.raises(BadBundle, match=r"emx-onnx-cgen, which is not installed here; pip install 'edgemeta\[c\]'"):
        c_source.require()


@pytest.mark.parametrize("text", ["", "void model(const float x[2]) {\n    x++;\n}\n"])
def test_c_that_reads_otherwise_is_refused(text):
    with pytest.raises(BadBundle, match="not as expected"):
        c_source.parse(text)


def test_elementwise_nodes_take_over_memory_and_copies_vanish():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Reshape", ["a", "flat"], ["b"]),
        helper.make_node("Neg", ["b"], ["c"]),  # may lie where a and b lie: nobody reads them again
        helper.make_node("Add", ["c", "row"], ["d"]),
        helper.make_node("Mul", ["c", "d"], ["y"]),
    ]
    row = numpy_helper.from_array(np.ones(6, np.float32), "row")
    source = c_source.compiled(_model(nodes, [numpy_helper.from_array(np.array([6], np.int64), "flat"), row], [6]))
    shared, place = c_graph.Shared(), [c_graph.Place("x", 0)]
    written = c_graph.write("odd", "const float *x, float *y", source, place, [c_graph.Place("y", 0)], shared)
    assert written.scratch_bytes == 2 * 24 and len(written.nodes) == len(nodes) - 1
    assert len(shared.names) == 1 and "Reshape" not in "".join(shared.functions())


def _model(nodes, constants=(), out=(2, 3)) -> onnx.ModelProto:
    """A graph "odd": x (2, 3) -> y."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(s)) for name, s in (("x", (2, 3)), ("y", out))
    ]
    trips = numpy_helper.from_array(np.array(2, np.int64), "trips")
    graph = helper.make_graph(nodes, "odd", values[:1], values[1:], [trips, *constants])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _empty_loop() -> onnx.GraphProto:
    def info(name, kind, shape):
        return helper.make_tensor_value_info(name, kind, shape)

    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["in"], ["out"])]
    inputs = [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("in", TensorProto.FLOAT, [2, 3])]
    outputs = [info("on", TensorProto.BOOL, []), info("out", TensorProto.FLOAT, [2, 3])]
    return helper.make_graph(nodes, "body", inputs, outputs)
