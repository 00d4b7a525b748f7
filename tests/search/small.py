"""What the tests of gradients are made of."""

import torch

from edgemeta.learners.outer import Tasks


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def small_task(seed, *, size=6, dtype=torch.float64):
    """3 ways of images, one for the support and two queries each."""
    rng = seeded(seed)
    x, query = (torch.rand((1, n, 1, size, size), generator=rng, dtype=dtype) for n in (3, 6))
    return Tasks(x, torch.eye(3, dtype=dtype)[None], query, torch.tensor([[0, 0, 1, 1, 2, 2]]))
