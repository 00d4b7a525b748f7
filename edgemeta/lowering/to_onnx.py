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
from edgemeta.latency.onnx_net import IR_VERSION, OPSET
from edgemeta.lowering.graph import Builder, Constants, onnx_type
from edgemeta.lowering.rules import write
from edgemeta.lowering.trace import Traced, TracedLearner

Slow = Mapping[str, Tensor]


def adapt(traced: TracedLearner, slow: Slow, dim: int) -> onnx.ModelProto:
    """(features (n, dim), onehot (n, way), steps ()) -> the fast tensors: `start`, then a Loop of `step`.

    What a step computes from the support alone is computed once, before the Loop.
    """
    outer = Builder("start", Constants())
    _name_inputs(outer, traced.start, slow)
    write(outer, traced.start.module.graph.nodes)
    initial = dict(zip(traced.start.outputs, map(outer.tensor, traced.start.results), strict=True))
    carried = [outer.add("Identity", initial[name]) for name in traced.step.outputs]
    body = _loop_body(outer, traced.step, slow)
    loop = helper.make_node("Loop", ["steps", "", *carried], list(traced.step.outputs), name="steps.Loop", body=body)
    outer.nodes.append(loop)
    onehot = helper.make_tensor_value_info("onehot", TensorProto.FLOAT, ["n", "way"])
    steps = helper.make_tensor_value_info("steps", TensorProto.INT64, [])
    return _model("adapt", outer, [_features(dim), onehot, steps], _value_infos(traced.step))


def classify(traced: TracedLearner, slow: Slow, dim: int) -> onnx.ModelProto:
    """(features (n, dim), the fast tensors) -> logits (n, way): `predict`."""
    builder = Builder("predict", Constants())
    _name_inputs(builder, traced.predict, slow)
    write(builder, traced.predict.module.graph.nodes)
    builder.add("Identity", builder.tensor(traced.predict.results[0]), output="logits")
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", "way"])
    return _model("classify", builder, [_features(dim), *_value_infos(traced.step)], [output])


def _name_inputs(builder: Builder, traced: Traced, slow: Slow, fast: str = "") -> None:
    """Name a function's placeholders. Slow parameters that it reads become constants; `fast` prefixes the fast ones."""
    for name, node in traced.placeholders.items():
        if not name.startswith("slow."):
            builder.names[node] = fast + name if name.startswith("fast.") else name
        elif node.users:
            value = slow[name.removeprefix("slow.")].detach().contiguous().numpy()
            builder.names[node] = builder.constants.add(value, name)


def _loop_body(outer: Builder, step: Traced, slow: Slow) -> onnx.GraphProto:
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
    inputs, outputs = (_value_infos(step, prefix) for prefix in ("step.in.", "step.out."))
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


def _features(dim: int) -> ValueInfoProto:
    return helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", dim])


def _value_infos(traced: Traced, prefix: str = "") -> list[ValueInfoProto]:
    """Names, types and shapes of a function's results; sizes that vary are named after their symbols."""
    infos = []
    for name, node in zip(traced.outputs, traced.results, strict=True):
        value = node.meta["val"]
        shape = [size if isinstance(size, int) else str(size) for size in value.shape]
        infos.append(helper.make_tensor_value_info(prefix + name, onnx_type(value.dtype), shape))
    return infos


def _model(name: str, builder: Builder, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> onnx.ModelProto:
    graph = helper.make_graph(builder.nodes, name, inputs, outputs, builder.constants.tensors)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="edgemeta")
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker and shape inference raise types of their own
        reason = " ".join(str(error).split())[:200]
        raise BadBundle(f"{name}.onnx is not valid ONNX: {reason}; correct its rule in lowering/rules.py") from error
    return model
