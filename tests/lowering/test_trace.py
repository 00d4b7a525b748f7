from __future__ import annotations

import pytest
import torch

from edgemeta.errors import BadBundle
from edgemeta.lowering.trace import trace


def test_sizes_stay_symbols(traced):
    for function, free in ((traced.step, "onehot"), (traced.predict, traced.reads)):
        assert any(isinstance(size, torch.SymInt) for size in function.placeholders[free].meta["val"].shape)


def test_names_of_the_fast_tensors_reach_the_graph(anil):
    traced = trace(anil.learner, anil.slow)
    assert traced.start.outputs == traced.step.outputs == ("fast.weight", "fast.bias", "fast.done")
    assert traced.predict.outputs == ("logits",)


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_branch_on_a_value_is_refused(anil):
    def step(slow, fast, support):
        return fast if support.x.sum() > 0 else anil.learner.step(slow, fast, support)

    with pytest.raises(BadBundle) as error:
        trace(anil.learner._replace(step=step), anil.slow)
    assert "cannot be traced" in one_line(error)


def test_step_that_loses_a_tensor_is_refused(anil):
    def step(slow, fast, support):
        return {"weight": fast["weight"]}

    with pytest.raises(BadBundle, match="make them agree"):
        trace(anil.learner._replace(step=step), anil.slow)
