"""Int8 bodies: the graph computes what torch computes with rounded numbers, and a bundle of one is held to that."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgemeta.errors import BadBundle
from edgemeta.lowering import bundle, check, int8
from edgemeta.nets.build import build
from edgemeta.space.presets import darts, edge


def images(shape, count, seed=0) -> np.ndarray:
    """Coarse patches: of fine noise a network's features hardly differ."""
    coarse = np.random.default_rng(seed).random((count, shape[0], 4, 4))
    tall, wide = -(-shape[1] // 4), -(-shape[2] // 4)
    return np.kron(coarse, np.ones((tall, wide)))[..., : shape[1], : shape[2]].astype(np.float32)


@pytest.fixture(scope="module")
def quantised(protonet) -> int8.Quantised:
    return int8.quantise(protonet.net, protonet.slow, images(protonet.net.in_shape, 100))


@pytest.mark.parametrize("make", [edge, darts])
@pytest.mark.parametrize("seed", range(3))
def test_a_graph_answers_as_torch_with_rounded_numbers(make, seed, rng):
    space = make()
    rng.seed(seed)
    net = build(space.ops(space.sample(rng=rng)))
    slow = net.init(rng=torch.Generator().manual_seed(seed))
    x = images(net.in_shape, 40)
    net.body(slow, torch.from_numpy(x), train=True)
    made = int8.quantise(net, slow, x)
    (got,) = check.run("body", check.load("body", made.model.SerializeToString()), {"x": x}, "test")
    want = int8.simulated(net.ops, made, torch.from_numpy(x)).numpy()
    apart = np.abs(got - want) / np.abs(want).max()
    assert apart.max() <= check.INT8_TOLERANCE and apart.mean() < 1e-3


def test_features_are_near_the_float_ones_and_the_graph_is_smaller(protonet, quantised):
    x = torch.from_numpy(images(protonet.net.in_shape, 100))
    with torch.no_grad():
        floats = protonet.net.body(protonet.slow, x)
        rounded = int8.simulated(protonet.net.ops, quantised, x)
    assert 0 < (floats - rounded).abs().mean() / floats.abs().mean() < 0.05


def test_calibration_covers_every_batch(protonet):
    """The brightest image is in the last batch."""
    x = images(protonet.net.in_shape, int8.TOGETHER + 1)
    x[-1] *= 3
    ranges = int8.quantise(protonet.net, protonet.slow, x).ranges
    assert ranges["x"][1] == x[-1].max() > x[:-1].max()


def test_a_bundle_says_that_its_body_is_int8_and_answers(protonet, quantised, tmp_path):
    made = {"slow": protonet.slow, "learner": protonet.learner, "facts": {}}
    found = bundle.read(bundle.write(tmp_path / "int8", body=quantised, **made))
    floats = bundle.read(bundle.write(tmp_path / "fp32", **made))
    assert (found.precision, floats.precision) == ("int8", "fp32") and found.id != floats.id
    assert found.checked.body <= check.INT8_TOLERANCE and found.checked.classify == floats.checked.classify
    assert found.graphs["body"].inputs == floats.graphs["body"].inputs
    kinds = {node.op_type for node in onnx.load(tmp_path / "int8" / "body.onnx").graph.node}
    assert "QuantizeLinear" in kinds and "numbers of the network | int8" in (tmp_path / "int8/README.md").read_text()


def test_a_wrong_scale_is_refused(protonet, quantised):
    wrong = onnx.ModelProto()
    wrong.CopyFrom(quantised.model)
    scale = next(tensor for tensor in wrong.graph.initializer if tensor.name == "v0.scale")
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(1.3), scale.name))
    expected = partial(int8.simulated, protonet.net.ops, quantised)
    fresh, tolerance = np.random.default_rng(0), check.INT8_TOLERANCE
    with pytest.raises(BadBundle, match=r"body\.onnx: z differs from torch"):
        check.body(wrong, protonet.net, expected, rng=fresh, tolerance=tolerance)
