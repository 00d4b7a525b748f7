from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad

from edgemeta.contracts import Support
from edgemeta.latency.onnx_net import IR_VERSION, OPSET
from edgemeta.learners import LEARNERS
from edgemeta.lowering import check, to_onnx
from edgemeta.lowering.trace import trace


@pytest.fixture(scope="module")
def models(trained):
    traced = trace(trained.learner, trained.slow)
    return [make(traced, trained.slow, trained.net.dim) for make in (to_onnx.adapt, to_onnx.classify)]


@pytest.fixture(scope="module")
def adapt_and_classify(models, trained):
    """(features, onehot, steps, queries) -> fast tensors and logits from ONNX Runtime, and those from torch."""
    adapt, classify = (check.load("test", model.SerializeToString()) for model in models)
    names = [tensor.name for tensor in adapt.get_outputs()]

    def run(features, onehot, steps, queries, rows):
        feeds = {"features": features, "onehot": onehot, "steps": np.array(steps)}
        fast = dict(zip(names, adapt.run(None, feeds), strict=True))
        (logits,) = classify.run(None, {"features": queries, **fast})
        support = Support(torch.from_numpy(features[:rows]), torch.from_numpy(onehot[:rows]))
        want = trained.learner.start(trained.slow, support)
        for _ in range(steps):
            want = trained.learner.step(trained.slow, want, support)
        return fast, logits, want, trained.learner.predict(trained.slow, want, torch.from_numpy(queries)).numpy()

    return run


@given(
    n=st.integers(1, 30),
    way=st.integers(1, 12),
    padding=st.integers(0, 9),
    steps=st.integers(0, 7),
    seed=st.integers(0, 999),
)
def test_same_answers_as_torch(adapt_and_classify, trained, n, way, padding, steps, seed):
    rng = np.random.default_rng(seed)
    features = np.abs(rng.standard_normal((n + padding, trained.net.dim))).astype(np.float32)
    onehot = np.eye(way, dtype=np.float32)[rng.integers(way, size=n + padding)]
    onehot[n:] = 0.0
    queries = np.abs(rng.standard_normal((3, trained.net.dim))).astype(np.float32)
    fast, logits, want, want_logits = adapt_and_classify(features, onehot, steps, queries, n)
    assert {f"fast.{name}" for name in want} == set(fast)
    for name, value in want.items():
        np.testing.assert_allclose(fast[f"fast.{name}"], value.numpy(), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(logits, want_logits, atol=1e-4, rtol=1e-4)


def test_old_runtimes_read_the_graphs(models):
    for model in models:
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
        assert model.ir_version == IR_VERSION
        onnx.checker.check_model(model, full_check=True)


def test_graphs_hold_only_what_they_read(models):
    """The body's weights are part of `slow`, and of no concern to the heads."""
    for model in models:
        assert sum(len(tensor.raw_data) for tensor in model.graph.initializer) < 1024


def test_what_stays_the_same_is_left_out_of_the_loop(anil):
    """ANIL normalises its features: once, not in every step."""
    model = to_onnx.adapt(trace(anil.learner, anil.slow), anil.slow, anil.net.dim)
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    inside = {node.op_type for node in loop.attribute[0].g.node}
    assert "Sqrt" not in inside and "LogSoftmax" in inside


def test_loss_by_index_is_not_silently_wrong(make_trained, rng=0):
    """Cross-entropy on class indices once exported, ran and gave wrong weights."""

    def loss(weights, support):
        logits = support.x @ weights["weight"].T + weights["bias"]
        each = F.cross_entropy(logits, support.onehot.argmax(1), reduction="none")
        shown = support.onehot.sum(1)
        return (each * shown).sum() / shown.sum()

    def step(slow, fast, support):
        gradient = grad(loss)(fast, support)
        return {name: value - 0.1 * gradient[name] for name, value in fast.items()}

    net, slow, learner = make_trained(lambda net: LEARNERS["anil"](net)._replace(step=step))
    traced = trace(learner, slow)
    graphs = to_onnx.adapt(traced, slow, net.dim), to_onnx.classify(traced, slow, net.dim)
    worst = check.learner(*graphs, learner, slow, rng=np.random.default_rng(rng))
    assert max(worst) < 1e-5
