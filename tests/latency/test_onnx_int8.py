from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import onnx
import onnxruntime
import pytest

from edgemeta.latency import onnx_net
from edgemeta.latency.onnx_int8 import WIDEST, calibrate, calibration_model, to_onnx
from edgemeta.latency.onnx_net import random_weights, stored_model, stored_weights
from edgemeta.latency.onnx_parts import WEIGHTS_FILE
from edgemeta.space.ops import Tape
from edgemeta.space.presets import edge

INTEGER = {"QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "MaxPool", "NhwcMaxPool"}
AROUND = {"QuantizeLinear": 1, "DequantizeLinear": 1, "Reshape": 1}  # input, output


def opened(model, *, optimised=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if optimised is None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    else:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def kinds(path) -> Counter:
    return Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)


def only_integers(found: Counter, ops) -> bool:
    """True where every operator became an integer one; transposes between layouts aside."""
    expected = Counter(op.kind for op in ops)
    integer = {kind: count for kind, count in found.items() if kind in INTEGER}
    pools = found["MaxPool"] + found["NhwcMaxPool"]
    counts = (found["QLinearConv"], pools, found["QLinearAdd"], found["QLinearGlobalAveragePool"])
    rest = {kind: count for kind, count in found.items() if kind not in integer and kind != "Transpose"}
    return counts == tuple(expected[kind] for kind in ("conv", "maxpool", "add", "gap")) and rest == AROUND


def images(shape, count, *, seed=0):
    """Coarse patches of random contrast: of fine noise, a global average would leave nothing that differs."""
    rng = np.random.default_rng(seed)
    contrast = rng.uniform(0.3, 2, (count, 1, 1, 1))
    coarse = rng.standard_normal((count, shape[0], shape[1] // 4 + 1, shape[2] // 4 + 1)) * contrast
    return np.kron(coarse, np.ones((4, 4)))[..., : shape[1], : shape[2]].astype(np.float32)


def quantised(ops, weights, *, batch=None, **settings):
    watch = opened(calibration_model(ops, weights).SerializeToString())
    ranges = calibrate(lambda x: watch.run(None, {"x": x}), [images(ops[0].in_shape, 8, seed=s) for s in (1, 2)])
    return to_onnx(ops, weights, ranges, batch=batch, **settings)


def run(session, x):
    return session.run(None, {"x": x})[0]


def likeness(z, float_z) -> float:
    """Correlation of what differs from image to image: the features' means alone would look alike."""
    return np.corrcoef((z - z.mean(0)).ravel(), (float_z - float_z.mean(0)).ravel())[0, 1]


@pytest.fixture(params=["tiny", "edge"])
def space(request, tiny):
    return tiny if request.param == "tiny" else edge()


@pytest.mark.parametrize("seed", range(4))
def test_features_are_those_of_the_float_net(space, seed, tmp_path):
    ops = space.ops(space.sample(rng=Random(seed)))
    weights = random_weights(ops)
    model = quantised(ops, weights)
    onnx.checker.check_model(model, full_check=True)
    x = images(space.in_shape, 16)
    expected = run(opened(onnx_net.to_onnx(ops, weights).SerializeToString()), x)
    integer = run(opened(model.SerializeToString(), optimised=tmp_path / "out.onnx"), x)
    assert likeness(integer, expected) > 0.99
    assert likeness(run(opened(model.SerializeToString()), x), expected) > 0.99  # a runtime that fuses nothing
    assert only_integers(kinds(tmp_path / "out.onnx"), ops)


def test_interface_is_that_of_the_float_net(tiny):
    ops = tiny.ops(tiny.sample(rng=Random(0)))
    model, plain = quantised(ops, random_weights(ops)), onnx_net.to_onnx(ops)
    assert list(model.graph.input) == list(plain.graph.input)
    assert list(model.graph.output) == list(plain.graph.output)
    assert model.opset_import == plain.opset_import


def test_kernels_take_a_quarter_of_the_bytes():
    space = edge()
    ops = space.ops(space.arch([{"width": width, "kind": "conv"} for width in (64, 64, 96, 128)]))
    weights = random_weights(ops)
    ratio = len(quantised(ops, weights).SerializeToString()) / len(onnx_net.to_onnx(ops, weights).SerializeToString())
    assert ratio < 0.3


def test_ranges_grow_with_every_batch(tiny):
    ops = tiny.ops(tiny.sample(rng=Random(2)))
    watch = opened(calibration_model(ops, random_weights(ops)).SerializeToString())
    batches = [images(tiny.in_shape, 4, seed=s) for s in range(3)]
    one = calibrate(lambda x: watch.run(None, {"x": x}), batches[:1])
    ranges = calibrate(lambda x: watch.run(None, {"x": x}), batches)
    assert list(ranges) == ["x", *(f"v{i}" for i in range(len(ops)))]
    assert ranges["x"] == (min(b.min() for b in batches), max(b.max() for b in batches))
    assert all(ranges[name][0] <= low and high <= ranges[name][1] for name, (low, high) in one.items())
    assert ranges != one


def two_filters(bias):
    tape = Tape((1, 8, 8))
    tape.conv(2, 1)
    return tape.ops, {"0.weight": np.array([1.0, 1e-9], np.float32).reshape(2, 1, 1, 1), "0.bias": np.float32(bias)}


def test_a_filter_far_smaller_than_its_bias_keeps_the_bias():
    ops, weights = two_filters([0.0, 3.0])
    z = run(opened(quantised(ops, weights).SerializeToString()), images((1, 8, 8), 1)).reshape(2, 64)
    assert np.allclose(z[1], 3.0, atol=0.05) and np.ptp(z[0]) > 1


def test_a_dead_net_gives_zeros():
    ops, weights = two_filters([0.0, 0.0])
    model = quantised(ops, {name: np.zeros_like(array) for name, array in weights.items()})
    assert not run(opened(model.SerializeToString()), images((1, 8, 8), 1)).any()


def test_seven_bits_stay_within_63(tiny):
    ops = tiny.ops(tiny.sample(rng=Random(3)))
    made = quantised(ops, random_weights(ops), weight_bits=7)
    kernels = [onnx.numpy_helper.to_array(w) for w in made.graph.initializer if w.name.endswith("weight.q")]
    assert max(np.abs(kernel).max() for kernel in kernels) == 63


# Models to be timed


@pytest.mark.parametrize("seed", range(4))
def test_stored_models_run_on_integers_alone(space, seed, tmp_path):
    ops = space.ops(space.sample(rng=Random(seed)))
    (tmp_path / WEIGHTS_FILE).write_bytes(stored_weights("int8"))
    (tmp_path / "net.onnx").write_bytes(stored_model(ops, precision="int8"))
    z = run(opened(tmp_path / "net.onnx", optimised=tmp_path / "out.onnx"), images(space.in_shape, 1))
    assert only_integers(kinds(tmp_path / "out.onnx"), ops)
    assert len(np.unique(z)) > 2  # activations neither die nor saturate


@pytest.mark.parametrize("seed", range(3))
def test_stored_models_are_the_graph_that_ships(space, seed):
    ops = space.ops(space.sample(rng=Random(seed)))
    shipped = quantised(ops, random_weights(ops), batch=1).graph
    timed = onnx.load_from_string(stored_model(ops, precision="int8")).graph
    assert list(timed.node) == list(shipped.node) and list(timed.input) == list(shipped.input)
    shapes = [{w.name: tuple(w.dims) for w in g.initializer if w.name.endswith(".q")} for g in (timed, shipped)]
    assert shapes[0] == shapes[1]


def test_more_filters_than_the_file_has_constants_for(tmp_path):
    tape = Tape((2, 2, 2))
    tape.conv(WIDEST + 1, 1)
    (tmp_path / WEIGHTS_FILE).write_bytes(stored_weights("int8"))
    (tmp_path / "net.onnx").write_bytes(stored_model(tape.ops, precision="int8"))
    assert run(opened(tmp_path / "net.onnx"), images((2, 2, 2), 1)).any()
