"""Traced functions as ONNX models that ONNX Runtime 1.13 and later read.

Written by hand, not by torch.onnx.export: from the same trace that took 2.5-3.6 s for `step` and `predict` of one
learner (a few milliseconds here), needs onnxscript, moves with its versions and has been silently wrong. Heads on
features need some fifty operators, and one without a rule stops the lowering.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto, ValueInfoProto, helper
from torch import Tensor, fx

from edgemeta.errors import BadBundle
from edgemeta.latency.onnx_parts import IR_VERSION, OPSET
from edgemeta.lowering import algebra, rules_images, rules_shapes  # noqa: F401  (they register their rules)
from edgemeta.lowering.graph import Builder, Constants, onnx_type
from edgemeta.lowering.rules import write
from edgemeta.lowering.trace import Traced, TracedLearner

Slow = Mapping[str, Tensor]
Symbols = Mapping[str, str]  # a traced size that varies -> its name


def adapt(traced: TracedLearner, slow: Slow) -> onnx.ModelProto:
    """(features (n, dim) or x (n, C, H, W), onehot (n, way), steps ()) -> the fast tensors: `start`, a Loop of `step`.

    What a step computes from the support alone is computed once, before the Loop.
    """
    outer = Builder("start", Constants())
    initial = _started(outer, traced.start, slow)
    carried = [outer.add("Identity", initial[name]) for name in traced.step.outputs]
    body = _loop_body(outer, traced.step, slow, traced.symbols)
    loop = helper.make_node("Loop", ["steps", "", *carried], list(traced.step.outputs), name="steps.Loop", body=body)
    outer.nodes.append(loop)
    support = [_info(traced.start.placeholders[name], name, traced.symbols) for name in (traced.reads, "onehot")]
    steps = helper.make_tensor_value_info("steps", TensorProto.INT64, [])
    return _model("adapt", outer, [*support, steps], _results(traced.step, traced.symbols))


def unrolled(traced: TracedLearner, slow: Slow, steps: int) -> onnx.ModelProto:
    """`adapt` for runtimes without loops: so many steps one after another, of functions traced with fixed `Sizes`."""
    builder = Builder("start", Constants())
    now, step, moving = _started(builder, traced.start, slow), traced.step, _moving(traced.step)
    _name_inputs(builder, step, slow)
    write(builder, [node for node in step.module.graph.nodes if node not in moving])
    for _ in range(steps):
        builder.names.update({step.placeholders[name]: value for name, value in now.items()})
        write(builder, [node for node in step.module.graph.nodes if node in moving])
        now = dict(zip(step.outputs, map(builder.tensor, step.results), strict=True))
    for name, value in now.items():
        builder.add("Identity", value, output=name)
    support = [_info(traced.start.placeholders[name], name, {}) for name in (traced.reads, "onehot")]
    return _model("adapt", builder, support, _results(step, {}))


def apart(traced: TracedLearner, slow: Slow) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """`adapt` for runtimes that loop by themselves, of functions traced with fixed `Sizes`: what comes before the first
    step, support -> `fast.*` and `kept.*`, and one step, support, `fast.*`, `kept.*` -> `next.*`.

    What is kept is what a step computes from the support alone. Only what is read is an input.
    """
    step, told = traced.step, _told(traced.step)
    kept = {f"kept.{i}": node for i, node in enumerate(n for n in told if any(user not in told for user in n.users))}
    support = [_info(traced.start.placeholders[name], name, {}) for name in (traced.reads, "onehot")]
    carried = [*_results(step, {}), *(_info(node, name, {}) for name, node in kept.items())]
    first = Builder("start", Constants())
    now = _started(first, traced.start, slow)
    _name_inputs(first, step, slow)
    write(first, [node for node in step.module.graph.nodes if node not in _moving(step)])
    _give(first, now | {name: first.tensor(node) for name, node in kept.items()})
    second = Builder("step", Constants())
    _name_inputs(second, step, slow)
    second.names.update({node: name for name, node in kept.items()})
    write(second, [node for node in step.module.graph.nodes if node not in told])
    after = {name.replace("fast.", "next.", 1): node for name, node in zip(step.outputs, step.results, strict=True)}
    _give(second, {name: second.tensor(node) for name, node in after.items()})
    read = {name for node in second.nodes for name in node.input}
    inputs = [value for value in (*support, *carried) if value.name in read]
    started = _model("start", first, support, carried)
    return started, _model("step", second, inputs, [_info(node, name, {}) for name, node in after.items()])


def _told(step: Traced) -> dict[fx.Node, None]:
    """The nodes that follow from the support and not from the fast tensors, in order."""
    moving, told = _moving(step), dict[fx.Node, None]()
    support = {node for name, node in step.placeholders.items() if not name.startswith(("slow.", "fast."))}
    for node in step.module.graph.nodes:
        if node.op != "output" and node not in moving and any(n in support or n in told for n in node.all_input_nodes):
            told[node] = None
    return told


def _give(builder: Builder, results: Mapping[str, str]) -> None:
    """Results under their names, and no node or constant that none of them needs."""
    for name, value in results.items():
        builder.add("Identity", value, output=name)
    needed, nodes = set(results), builder.nodes[::-1]
    builder.nodes.clear()
    for node in nodes:
        if needed & set(node.output):
            needed.update(node.input)
            builder.nodes.insert(0, node)
    builder.constants.tensors[:] = [tensor for tensor in builder.constants.tensors if tensor.name in needed]


def classify(traced: TracedLearner, slow: Slow) -> onnx.ModelProto:
    """(features (q, dim) or x (q, C, H, W), the fast tensors) -> logits (q, way): `predict`."""
    builder = Builder("predict", Constants())
    _name_inputs(builder, traced.predict, slow)
    write(builder, traced.predict.module.graph.nodes)
    builder.add("Identity", builder.tensor(traced.predict.results[0]), output="logits")
    queries = _info(traced.predict.placeholders[traced.reads], traced.reads, traced.symbols)
    logits = _info(traced.predict.results[0], "logits", traced.symbols)
    return _model("classify", builder, [queries, *_results(traced.step, traced.symbols)], [logits])


def _started(builder: Builder, start: Traced, slow: Slow) -> dict[str, str]:
    """The names of the fast tensors before the first step."""
    _name_inputs(builder, start, slow)
    write(builder, start.module.graph.nodes)
    return dict(zip(start.outputs, map(builder.tensor, start.results), strict=True))


def _name_inputs(builder: Builder, traced: Traced, slow: Slow, fast: str = "") -> None:
    """Name a function's placeholders. Slow parameters that it reads become constants; `fast` prefixes the fast ones."""
    for name, node in traced.placeholders.items():
        if not name.startswith("slow."):
            builder.names[node] = fast + name if name.startswith("fast.") else name
        elif node.users:
            value = slow[name.removeprefix("slow.")].detach().contiguous().numpy()
            builder.names[node] = builder.constants.add(value, name)


def _loop_body(outer: Builder, step: Traced, slow: Slow, symbols: Symbols) -> onnx.GraphProto:
    """One `step` as the body of a Loop; support and constants are read from the graph around it."""
    _name_inputs(outer, step, slow, fast="step.in.")
    moving = _moving(step)
    write(outer, [node for node in step.module.graph.nodes if node not in moving])
    inner = Builder("step", outer.constants, dict(outer.names))
    write(inner, [node for node in step.module.graph.nodes if node in moving])
    for name, result in zip(step.outputs, step.results, strict=True):
        inner.add("Identity", inner.tensor(result), output=f"step.out.{name}")
    inner.add("Identity", "step.go", output="step.goes_on")
    counter = helper.make_tensor_value_info("step.count", TensorProto.INT64, [])
    go, goes_on = (helper.make_tensor_value_info(f"step.{name}", TensorProto.BOOL, []) for name in ("go", "goes_on"))
    inputs, outputs = (_results(step, symbols, prefix) for prefix in ("step.in.", "step.out."))
    return helper.make_graph(inner.nodes, "step", [counter, go, *inputs], [goes_on, *outputs])


def _moving(step: Traced) -> set[fx.Node]:
    """The nodes that follow from the fast tensors' values, which change from step to step.

    A size does not: the shapes of fast tensors stay, so even a size read off one of them is the same in every step,
    but it has to be read inside the Loop, where the tensor is.
    """
    moving = {node for name, node in step.placeholders.items() if name.startswith("fast.")}
    for node in step.module.graph.nodes:
        if any(source in moving for source in node.all_input_nodes):
            moving.add(node)
    return moving


def _results(traced: Traced, symbols: Symbols, prefix: str = "") -> list[ValueInfoProto]:
    return [_info(node, prefix + name, symbols) for name, node in zip(traced.outputs, traced.results, strict=True)]


def _info(node: fx.Node, name: str, symbols: Symbols) -> ValueInfoProto:
    """Name, type and shape of a traced tensor; sizes that vary have the names of their symbols."""
    value = node.meta["val"]
    shape = [size if isinstance(size, int) else symbols.get(str(size), str(size)) for size in value.shape]
    return helper.make_tensor_value_info(name, onnx_type(value.dtype), shape)


def _model(name: str, builder: Builder, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> onnx.ModelProto:
    constants, told = builder.constants.tensors, builder.told
    graph = helper.make_graph(builder.nodes, name, inputs, outputs, constants, value_info=told)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="edgemeta")
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker and shape inference raise types of their own
        reason = " ".join(str(error).split())[:200]
        raise BadBundle(f"{name}.onnx is not valid ONNX: {reason}; correct its rule in lowering/rules.py") from error
    return model
