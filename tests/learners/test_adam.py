"""Adam is torch's, to the bit."""

import sys

import pytest
import torch

from edgemeta.learners.adam import Adam
from edgemeta.search.workers import worker_pool


@pytest.mark.parametrize(("betas", "decay"), [((0.9, 0.999), 0.0), ((0.5, 0.999), 1e-3)])
def test_steps_are_those_of_torch(betas, decay):
    rng = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=rng) for shape in ((3, 4), (5,), ())]
    ours, theirs = ([value.clone().requires_grad_() for value in start] for _ in range(2))
    mine, reference = (
        Adam(ours, 0.1, betas=betas, decay=decay),
        torch.optim.Adam(theirs, 0.1, betas, weight_decay=decay),
    )
    for lr in (0.1, 0.05, 0.2, 0.001):
        slopes = [torch.randn(value.shape, generator=rng) for value in start]
        mine.lr = reference.param_groups[0]["lr"] = lr
        for value, slope in zip(theirs, slopes, strict=True):
            value.grad = slope.clone()
        mine.step(slopes)
        reference.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_what_has_no_gradient_stays():
    one, two = torch.ones(2), torch.ones(2)
    Adam([one, two], 0.1).step([None, torch.ones(2)])
    assert one.tolist() == [1, 1] and two.tolist() != [1, 1]


def test_training_needs_no_compiler():
    """It takes seconds to import, in every process."""
    with worker_pool(1) as executor:
        found = executor.submit(imported_with_everything).result()
    assert "edgemeta.search.jobs" in found and "edgemeta.pipeline" in found and "torch._dynamo" not in found


def imported_with_everything() -> set[str]:
    import edgemeta.pipeline  # noqa: F401

    return set(sys.modules)
