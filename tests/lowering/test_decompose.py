from __future__ import annotations

import pytest
import torch

from edgemeta.lowering.decompose import eye, table, var, var_mean


@pytest.mark.parametrize("dim", [None, [0], [1], [0, 2]])
@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("keepdim", [False, True])
def test_variance_is_torchs(dim, correction, keepdim, generator):
    x = torch.randn(4, 3, 5, generator=generator)
    settings = dict(correction=correction, keepdim=keepdim)
    for ours, theirs in zip(var_mean(x, dim, **settings), torch.var_mean(x, dim, **settings), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(var(x, dim, **settings), torch.var(x, dim, **settings))


@pytest.mark.parametrize("sizes", [(3,), (300,), (2, 5)])
def test_eye_is_torchs(sizes):
    assert torch.equal(eye(*sizes), torch.eye(*sizes)) and torch.equal(eye(4, dtype=torch.int64), torch.eye(4).long())


def test_loss_by_index_is_taken_apart():
    """The operator that exporters got silently wrong never reaches the ONNX writer."""
    names = {str(target) for target in table()}
    assert {"aten.nll_loss_forward.default", "aten.nll_loss_backward.default"} <= names
