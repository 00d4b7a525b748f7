from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad

from edgemeta.contracts import Support
from edgemeta.latency.onnx_parts import IR_VERSION, OPSET
from edgemeta.learners import LEARNERS
from edgemeta.lowering import check, to_onnx
from edgemeta.lowering.trace import Sizes, reads, trace


@pytest.fixture(scope="module")
def models(trained, traced):
    return [make(traced, trained.slow) for make in (to_onnx.adapt, to_onnx.classify)]


@pytest.fixture(scope="module")
def adapt_and_classify(models, trained):
    """(x, onehot, steps, queries, rows) -> fast tensors and logits of ONNX Runtime, and those of torch.

    Torch's logits are of the first `rows` of the support alone: the others are padding.
    """
    adapt, classify = (check.load("test", model.SerializeToString()) for model in models)
    names, (examples, _) = [tensor.name for tensor in adapt.get_outputs()], reads(trained.learner)
    wanted = {tensor.name for tensor in classify.get_inputs()}
    learner, slow = trained.learner, trained.slow

    def in_torch(x, onehot, steps, queries):
        support = Support(torch.from_numpy(x), torch.from_numpy(onehot))
        fast = learner.start(slow, support)
        for _ in range(steps):
            fast = learner.step(slow, fast, support)
        return fast, learner.predict(slow, fast, torch.from_numpy(queries)).numpy()

    def run(x, onehot, steps, queries, rows):
        if learner.steps is None:
            steps = len(x)
        feeds = {examples: x, "onehot": onehot, "steps": np.array(steps)}
        fast = dict(zip(names, adapt.run(None, feeds), strict=True))
        known = {examples: queries, **fast}
        (logits,) = classify.run(None, {name: value for name, value in known.items() if name in wanted})
        want, _ = in_torch(x, onehot, steps, queries)
        _, want_logits = in_torch(x[:rows], onehot[:rows], rows if learner.steps is None else steps, queries)
        return fast, logits, want, want_logits

    return run


@settings(max_examples=15)
@given(
    n=st.integers(1, 20),
    way=st.integers(1, 12),
    padding=st.integers(0, 9),
    steps=st.integers(0, 7),
    seed=st.integers(0, 999),
)
def test_same_answers_as_torch(adapt_and_classify, trained, n, way, padding, steps, seed):
    rng, (_, shape) = np.random.default_rng(seed), reads(trained.learner)
    x = np.abs(rng.standard_normal((n + padding, *shape))).astype(np.float32)
    onehot = np.eye(way, dtype=np.float32)[rng.integers(way, size=n + padding)]
    onehot[n:] = 0.0
    queries = np.abs(rng.standard_normal((3, *shape))).astype(np.float32)
    fast, logits, want, want_logits = adapt_and_classify(x, onehot, steps, queries, n)
    assert {f"fast.{name}" for name in want} == set(fast)
    for name, value in want.items():
        np.testing.assert_allclose(fast[f"fast.{name}"], value.numpy(), atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(logits, want_logits, atol=1e-4, rtol=1e-4)


def test_old_runtimes_read_the_graphs(models):
    for model in models:
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
        assert model.ir_version == IR_VERSION
        onnx.checker.check_model(model, full_check=True)


def test_graphs_hold_only_what_they_read(models, trained):
    """The body's weights are part of `slow`, and of no concern to the heads, nor are statistics to what is learned."""
    own = sum(value.nbytes for name, value in trained.slow.items() if not name[0].isdigit())
    own += 0 if trained.learner.on_features else sum(value.nbytes for value in trained.slow.values())
    for model in models:
        assert sum(len(tensor.raw_data) for tensor in model.graph.initializer) < own + 2048


def test_what_stays_the_same_is_left_out_of_the_loop(anil):
    """ANIL normalises its features: once, not in every step."""
    model = to_onnx.adapt(trace(anil.learner, anil.slow), anil.slow)
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
    graphs = to_onnx.adapt(traced, slow), to_onnx.classify(traced, slow)
    worst = check.learner(*graphs, learner, slow, rng=np.random.default_rng(rng))
    assert max(worst) < 1e-5


def test_without_loops_it_answers_the_same(trained):
    """Fixed sizes, padded: what C is made of."""
    learner, slow, rng = trained.learner, trained.slow, np.random.default_rng(0)
    sizes, name = Sizes(n=9, way=3, queries=2), reads(learner)[0]
    traced, rows = trace(learner, slow, sizes), 7
    steps = sizes.n if learner.steps is None else learner.steps
    adapt, classify = to_onnx.unrolled(traced, slow, steps), to_onnx.classify(traced, slow)
    assert not any(node.op_type in ("Loop", "Shape") for model in (adapt, classify) for node in model.graph.node)
    x = np.abs(rng.standard_normal((sizes.n + sizes.queries, *reads(learner)[1]))).astype(np.float32)
    onehot = np.eye(sizes.way, dtype=np.float32)[np.arange(sizes.n) % sizes.way]
    onehot[rows:] = 0.0
    runtimes = [check.load("test", model.SerializeToString()) for model in (adapt, classify)]
    names = [tensor.name for tensor in runtimes[0].get_outputs()]
    fast = dict(zip(names, runtimes[0].run(None, {name: x[: sizes.n], "onehot": onehot}), strict=True))
    feeds = {tensor.name: {name: x[sizes.n :], **fast}[tensor.name] for tensor in runtimes[1].get_inputs()}
    support = Support(torch.from_numpy(x[:rows]), torch.from_numpy(onehot[:rows]))
    want = learner.start(slow, support)
    for _ in range(rows if learner.steps is None else steps):
        want = learner.step(slow, want, support)
    logits = learner.predict(slow, want, torch.from_numpy(x[sizes.n :])).numpy()
    np.testing.assert_allclose(runtimes[1].run(None, feeds)[0], logits, atol=1e-4, rtol=1e-4)


def test_two_fast_tensors_that_start_as_one_are_told_apart(make_trained):
    """Zeros shared by two, or a slow tensor itself, were once taken for each other in every step."""

    def start(slow, support):
        zeros = support.x.new_zeros(support.onehot.shape[1])
        return {"one": zeros, "other": zeros, "weight": slow["head.row"]}

    def step(slow, fast, support):
        seen = support.onehot.sum(0)
        return {"one": fast["one"] + seen, "other": fast["other"] - seen, "weight": fast["weight"] - slow["head.row"]}

    def predict(slow, fast, x):
        return x.sum(1, keepdim=True) * fast["one"] + fast["other"] + fast["weight"].sum()

    _, slow, learner = make_trained(lambda net: LEARNERS["anil"](net)._replace(start=start, step=step, predict=predict))
    graphs = [make(trace(learner, slow), slow) for make in (to_onnx.adapt, to_onnx.classify)]
    assert max(check.learner(*graphs, learner, slow, rng=np.random.default_rng(0))) < 1e-6
