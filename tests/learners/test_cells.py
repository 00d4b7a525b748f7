"""The long short-term memory cell against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.func import vmap

from edgemeta.learners.cells import lstm, lstm_init, zeros

INPUTS, SIZE = 5, 3


@pytest.fixture
def weights(generator):
    found = lstm_init("c", INPUTS, SIZE, rng=generator)
    return {name: value.double() + 0.1 for name, value in found.items()}


def test_same_as_torchs_cell(weights, generator):
    cell = torch.nn.LSTMCell(INPUTS, SIZE, dtype=torch.float64)
    with torch.no_grad():
        cell.weight_ih.copy_(weights["c.input"].T)
        cell.weight_hh.copy_(weights["c.hidden"].T)
        cell.bias_ih.copy_(weights["c.bias"])
        cell.bias_hh.zero_()
    x = torch.randn(4, 7, INPUTS, generator=generator, dtype=torch.float64)
    ours = theirs = zeros(x, 7, SIZE)
    for step in x:
        ours, theirs = lstm(weights, "c", step, ours), cell(step, theirs)
        for got, want in zip(ours, theirs, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_any_leading_dimensions_and_many_weights(weights, generator):
    """A learner's coordinates, (way, d), pass through one cell; tasks, through `vmap`."""
    x = torch.randn(2, 7, INPUTS, generator=generator, dtype=torch.float64)
    together = lstm(weights, "c", x, zeros(x, 2, 7, SIZE))
    several = {name: torch.stack([value, value + 0.2]) for name, value in weights.items()}
    mapped = vmap(lambda own, x: lstm(own, "c", x, zeros(x, 7, SIZE)))(several, x)
    for row, own in enumerate([weights, {name: value + 0.2 for name, value in weights.items()}]):
        torch.testing.assert_close(together[0][row], lstm(weights, "c", x[row], zeros(x, 7, SIZE))[0])
        torch.testing.assert_close(mapped[1][row], lstm(own, "c", x[row], zeros(x, 7, SIZE))[1])


def test_a_new_cell_remembers(generator):
    """Forget gates start open: sigmoid(1) of what was there stays."""
    params = lstm_init("c", INPUTS, SIZE, rng=generator)
    assert params["c.bias"].tolist() == [0.0] * 3 + [1.0] * 3 + [0.0] * 6
    assert all(params[name].abs().max() <= SIZE**-0.5 for name in ("c.input", "c.hidden"))
    blank = {name: torch.zeros_like(value) for name, value in params.items()} | {"c.bias": params["c.bias"]}
    _, cell = lstm(blank, "c", torch.zeros(1, INPUTS), (torch.zeros(1, SIZE), torch.ones(1, SIZE)))
    torch.testing.assert_close(cell, torch.sigmoid(torch.ones(1, SIZE)))
