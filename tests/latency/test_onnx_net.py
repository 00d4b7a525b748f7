from __future__ import annotations

from random import Random

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgemeta.latency.measure import session
from edgemeta.latency.onnx_net import _normals, random_weights, stored_model, stored_weights, to_onnx
from edgemeta.latency.onnx_parts import POOL, WEIGHTS_FILE, Cutter
from edgemeta.nets.build import build, fold
from edgemeta.space.ops import Tape
from edgemeta.space.presets import SPACES, edge


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", SPACES)
def test_the_timed_graph_is_the_torch_net(name, seed):
    space = SPACES[name]()
    ops = space.ops(space.sample(rng=Random(seed)))
    net = build(ops)
    params = net.init(rng=torch.Generator().manual_seed(seed))
    x = torch.randn(2, *space.in_shape, generator=torch.Generator().manual_seed(9))
    (z,) = session(to_onnx(ops, fold(ops, params)).SerializeToString()).run(None, {"x": x.numpy()})
    want = net.body(params, x).detach().numpy()
    assert np.abs(z - want).max() <= 1e-5 * max(10, np.abs(want).max())


def test_random_weights_are_repeatable_and_of_the_right_scale(tiny):
    ops = tiny.ops(tiny.arch([{"kind": "mb6", "depth": 2}, {"kind": "mb6", "depth": 2}]))
    first, again = random_weights(ops), random_weights(ops)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    kernels = [first[f"{i}.weight"] for i, op in enumerate(ops) if op.kind == "conv" and op.weight_bytes > 600]
    assert all(0.5 < kernel.std() / np.sqrt(2 / kernel[0].size) < 1.5 for kernel in kernels)
    assert not np.array_equal(kernels[0].ravel()[:8], kernels[-1].ravel()[:8])


def test_the_pool_wraps_around():
    wrapped = _normals(POOL - 2, 5)
    assert np.array_equal(wrapped, np.concatenate([_normals(POOL - 2, 2), _normals(0, 3)]))
    assert _normals(3, 2 * POOL).shape == (2 * POOL,)


# Stored models: weights in a file beside them


@pytest.fixture(scope="module")
def weights_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for precision in ("fp32", "int8"):
        (folder / precision).mkdir()
        (folder / precision / WEIGHTS_FILE).write_bytes(stored_weights(precision))
    return folder


def run(opened, shape, *, seed=0):
    x = np.random.default_rng(seed).standard_normal((1, *shape), dtype=np.float32)
    return opened.run(None, {"x": x})


def graph_of(model: onnx.ModelProto) -> tuple:
    nodes = [(n.op_type, n.name, tuple(n.input), tuple(n.output), str(n.attribute)) for n in model.graph.node]
    weights = {w.name: (tuple(w.dims), w.data_type) for w in model.graph.initializer}
    return nodes, weights, str(model.graph.input), str(model.graph.output), str(model.opset_import)


@pytest.mark.parametrize("seed", range(3))
def test_a_stored_model_is_the_same_graph(tiny, seed):
    ops = tiny.ops(tiny.sample(rng=Random(seed)))
    assert graph_of(onnx.load_from_string(stored_model(ops))) == graph_of(to_onnx(ops, batch=1))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_stored_model_is_small_and_opens_by_path_and_by_bytes(tiny, weights_folder, precision):
    ops = tiny.ops(tiny.sample(rng=Random(1)))
    model, folder = stored_model(ops, precision=precision), weights_folder / precision
    assert len(model) < 10_000
    (folder / "0000.onnx").write_bytes(model)
    by_path = onnxruntime.InferenceSession(folder / "0000.onnx", providers=["CPUExecutionProvider"])
    options = onnxruntime.SessionOptions()
    held = (folder / WEIGHTS_FILE).read_bytes()
    options.add_external_initializers_from_files_in_memory([WEIGHTS_FILE], [held], [len(held)])
    by_bytes = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (z,), (again,) = run(by_path, tiny.in_shape), run(by_bytes, tiny.in_shape)
    assert np.array_equal(z, again) and np.isfinite(z).all() and z.std() > 0


def deepest() -> list[tuple]:
    """The nets of `edge` in which activations can grow or shrink most: widest, narrowest, of each kind."""
    space = edge()
    picks = [
        {"depth": 2, "width": pick, "kernel": kernel, "kind": kind, "down": down}
        for pick in (0, -1)
        for kernel in (3, 5)
        for kind in ("conv", "sep", "mb6")
        for down in ("pool", "stride")
    ]
    widths = [dict(space.slots)[f"stage{i + 1}.width"] for i in range(len(space.segments))]
    archs = [space.arch([s | {"width": width[s["width"]]} for width in widths]) for s in picks]
    return [space.ops(arch) for arch in archs]


def test_activations_of_stored_models_stay_sane(weights_folder):
    path = weights_folder / "fp32" / "deep.onnx"
    smallest = np.finfo(np.float32).tiny
    for ops in deepest():
        model = onnx.load_from_string(stored_model(ops))
        values = [f"v{i}" for i in range(len(ops))]
        del model.graph.output[:]
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in values)
        onnx.save(model, path)
        for activation in run(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]), edge().in_shape):
            size = np.abs(activation)
            assert size.max() < 1e4 and size.std() > 1e-4
            assert ((size == 0) | (size > 1e6 * smallest)).all()


def test_a_kernel_larger_than_the_file_stays_in_the_model(weights_folder):
    tape = Tape((256, 4, 4))
    tape.conv(512, 3)
    model = stored_model(tape.ops)
    assert len(model) > 512 * 256 * 9 * 4
    path = weights_folder / "fp32" / "large.onnx"
    path.write_bytes(model)
    (z,) = run(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]), (256, 4, 4))
    assert np.isfinite(z).all()


def test_pieces_follow_one_another_and_begin_again():
    cutter = Cutter(256)
    assert [cutter.cut(n) for n in (100, 60, 65, 256, 257)] == [0, 128, 0, 0, None]
