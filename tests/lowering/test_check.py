from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgemeta.errors import BadBundle
from edgemeta.lowering import bundle, check


@pytest.fixture
def fresh():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def graphs(anil):
    return bundle.lower(anil.slow, anil.learner)


def bent(model: onnx.ModelProto, name: str, change) -> onnx.ModelProto:
    """A copy with another value in one constant."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (tensor,) = (tensor for tensor in copy.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))
    return copy


def swapped(model: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    """A copy with another operator inside its Loop."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (loop,) = (node for node in copy.graph.node if node.op_type == "Loop")
    next(node for node in reversed(loop.attribute[0].g.node) if node.op_type == old).op_type = new
    return copy


def test_right_graphs_pass(bundled):
    graphs = bundle.lower(bundled.slow, bundled.learner)
    checked = bundle.verify(graphs, bundled.slow, bundled.learner, seed=1)
    assert max(checked["body"] or 0.0, checked["classify"]) < 1e-5 and checked["adapt"] < 1e-2


@pytest.mark.parametrize("graph, change", [("body", 0.999), ("adapt", 1.01), ("classify", None)])
def test_wrong_graph_is_refused_by_name(graph, change, graphs, anil):
    wrong = dict(graphs)
    if graph == "body":
        wrong["body"] = bent(graphs["body"], "0.weight", lambda value: value * np.float32(change))
    elif graph == "adapt":
        wrong["adapt"] = bent(graphs["adapt"], "slow.head.log_lr", lambda value: value * np.float32(change))
    else:
        wrong["classify"] = onnx.ModelProto()
        wrong["classify"].CopyFrom(graphs["classify"])
        (node,) = (node for node in wrong["classify"].graph.node if "fast.bias" in node.input)
        node.op_type = "Sub"
    with pytest.raises(BadBundle) as error:
        bundle.verify(wrong, anil.slow, anil.learner, seed=0)
    message = str(error.value)
    assert message.startswith(f"{graph}.onnx: ") and "differs from torch by" in message and "\n" not in message


def test_wrong_sign_of_the_step_is_refused(graphs, anil, fresh):
    wrong = swapped(graphs["adapt"], "Sub", "Add")
    with pytest.raises(BadBundle, match=r"adapt\.onnx: fast\."):
        check.learner(wrong, graphs["classify"], anil.learner, anil.slow, rng=fresh)


def test_body_that_trains_is_refused(graphs, anil, fresh):
    """A network exported while it normalises by batch once got the semantics of evaluation, silently."""
    slow = {name: value.clone() for name, value in anil.slow.items()}
    training = anil.net._replace(body=lambda params, x, train=False: anil.net.body(params, x, train=True))
    with pytest.raises(BadBundle, match=r"body\.onnx: z differs"):
        check.body(graphs["body"], training, partial(training.body, slow), rng=fresh)


def test_padding_that_counts_is_refused(make_trained, anil, fresh):
    def start(slow, support):
        return {name: value + support.x.mean() for name, value in anil.learner.start(slow, support).items()}

    net, slow, learner = make_trained(lambda net: anil.learner._replace(net=net, start=start))
    graphs = bundle.lower(slow, learner)
    with pytest.raises(BadBundle, match=r"adapt\.onnx: logits that follow .*padding=2"):
        check.learner(graphs["adapt"], graphs["classify"], learner, slow, rng=fresh)


def test_nan_is_refused(graphs, anil, fresh):
    wrong = bent(graphs["body"], "0.bias", lambda value: value * np.float32("nan"))
    with pytest.raises(BadBundle, match="differs from torch by nan"):
        check.body(wrong, anil.net, partial(anil.net.body, anil.slow), rng=fresh)


def test_other_shape_is_refused(graphs, anil, fresh):
    """Torch gives two columns where the graph gives one for each class."""
    cut = anil.learner._replace(predict=lambda slow, fast, x: anil.learner.predict(slow, fast, x)[:, :2])
    with pytest.raises(BadBundle, match=r"classify\.onnx: logits is \(9, 5\), torch gives \(9, 2\)"):
        check.learner(graphs["adapt"], graphs["classify"], cut, anil.slow, rng=fresh)


def test_garbage_is_refused_in_one_line():
    with pytest.raises(BadBundle) as error:
        check.load("body", b"not a model")
    assert "body.onnx" in str(error.value) and "\n" not in str(error.value)


def test_tolerance_scales_with_large_values_only():
    want = torch.tensor([1000.0, 0.0])
    assert check._compare("g", "t", np.array([1000.05, 0.0]), want, "") == pytest.approx(5e-5, rel=1e-2)
    with pytest.raises(BadBundle):
        check._compare("g", "t", np.array([0.0, 2e-4]), torch.zeros(2), "")
