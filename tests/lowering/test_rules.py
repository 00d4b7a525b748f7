"""Each rule against torch, as the start of a learner whose fast tensor is a function of the support."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import grad

from edgemeta.contracts import Learner, Support
from edgemeta.errors import BadBundle
from edgemeta.lowering import check, to_onnx
from edgemeta.lowering.trace import trace
from edgemeta.nets.build import build
from edgemeta.types import Op

DIM = 6


def attention(x, onehot):
    keys = F.normalize(x, dim=1)
    return torch.softmax(keys @ keys.T * 3.0, 1) @ onehot


def gates(x, onehot):
    candidate, gate = (x @ x.T @ x).chunk(2, 1)
    return torch.tanh(candidate) * torch.sigmoid(gate)


def by_index(x, onehot):
    """Cross-entropy by class index, forward and backward."""
    labels = onehot.argmax(1)
    weight = torch.zeros(onehot.shape[1], x.shape[1])
    return grad(lambda w: F.cross_entropy(x @ w.T, labels))(weight)


def loss_by_index(x, onehot):
    return F.cross_entropy(x @ x.T @ onehot, onehot.argmax(1), reduction="none")


def two_layers(x, onehot):
    weight = torch.full((x.shape[1], 3), 0.1)
    return grad(lambda w: F.relu(x @ w - 0.05).pow(2).mean() + (F.gelu(x @ w)).sum())(weight)


FUNCTIONS = {
    "attention": attention,
    "gates": gates,
    "by_index": by_index,
    "loss_by_index": loss_by_index,
    "two_layers": two_layers,
    "unary": lambda x, y: torch.cat(
        [x.exp().log(), x.abs().sqrt(), (x * x + 1).rsqrt(), x.sin() + x.cos(), x.erf()], 1
    ),
    "more_unary": lambda x, y: torch.stack([x.sign(), x.floor(), (x + 9).reciprocal(), F.silu(x), F.leaky_relu(x)]),
    "binary": lambda x, y: torch.maximum(x, 2 - x) / (1.5 + torch.minimum(x, x * x)).abs() ** 1.5,
    "alpha": lambda x, y: torch.add(x, x * x, alpha=0.3) - torch.sub(1.0 + x, x.square(), alpha=2),
    "integers": lambda x, y: (y.sum(0).long() * 3 + 1) / 2,
    "compare": lambda x, y: torch.where((x > 0) & (x < 1) | (x.abs() >= 2), x, -x) * (x != 0) * (x <= 3),
    "logic": lambda x, y: torch.logical_not(torch.logical_or(x > 1, torch.logical_and(x > 0, x < 0.5))).float(),
    "clamp": lambda x, y: x.clamp(-0.5, 0.5) + x.clamp(max=0.1) + x.clamp_min(0.2),
    "reduce": lambda x, y: x.amax(1) - x.amin(1) + x.mean(1) + x.sum() + x.mean(),
    "variance": lambda x, y: F.layer_norm(x, (DIM,)) * x.std(1, keepdim=True) + x.var(),
    "classes": lambda x, y: F.one_hot(y.argmax(1), 7).float(),
    "affine": lambda x, y: torch.addmm(x, x, x.T @ x, alpha=0.5, beta=2.0),
    "batched": lambda x, y: torch.bmm(x[:, None], x[:, :, None]).squeeze(2).squeeze(1),
    "slices": lambda x, y: x[1:, ::2] + x[1:, 1::2] + x[0, -1] + x[1:, 2:3],
    "shapes": lambda x, y: x.repeat(2, 3).reshape(-1).unflatten(0, (x.shape[0], -1)).permute(1, 0).contiguous(),
    "repeats": lambda x, y: x[0].repeat(y.shape[1], 1).expand(2, -1, -1),
    "sizes": lambda x, y: x.sum(0) / x.shape[0] + torch.arange(DIM) * y.shape[1] + x.new_ones(x.shape[0] * 2).sum(),
    "gather": lambda x, y: x.gather(1, y.argmax(1, keepdim=True)) + x.index_select(0, y.argmax(1)),
    "scatter": lambda x, y: torch.zeros_like(x).scatter(1, y.argmax(1, keepdim=True), 2.0),
    "scatter_add": lambda x, y: x.new_zeros(y.shape[1], DIM).scatter_add(0, y.argmax(1)[:, None].expand(-1, DIM), x),
    "identity": lambda x, y: torch.eye(DIM) + x.T @ x,
    "constant": lambda x, y: torch.ones(3, 2),
    "untouched": lambda x, y: x,
}


def learner_of(function) -> Learner:
    return Learner(
        "test",
        build((Op("conv", (1, 1, 1), (DIM, 1, 1)),)),
        True,
        0,
        None,
        lambda slow, s: {"out": function(s.x, s.onehot)},
        lambda slow, f, s: f,
        lambda slow, f, x: x,
    )


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_same_as_torch(function, generator):
    learner = learner_of(function)
    session = check.load("test", to_onnx.adapt(trace(learner, {}), {}).SerializeToString())
    for n, way in ((9, 4), (4, 2), (30, 5)):
        x = torch.randn(n, DIM, generator=generator)
        onehot = torch.eye(way)[torch.arange(n) % way]
        want = learner.start({}, Support(x, onehot))["out"].numpy()
        (got,) = session.run(None, {"features": x.numpy(), "onehot": onehot.numpy(), "steps": np.array(0)})
        assert got.dtype == want.dtype and got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


def test_operator_without_rule_is_named():
    with pytest.raises(BadBundle, match="no ONNX for aten.cumsum.*rules.py"):
        to_onnx.adapt(trace(learner_of(lambda x, y: x.cumsum(0)), {}), {})


def test_rounding_division_is_refused():
    learner = learner_of(lambda x, y: torch.div(x, 2.0, rounding_mode="trunc"))
    with pytest.raises(BadBundle, match="no ONNX for"):
        to_onnx.adapt(trace(learner, {}), {})
