"""Adam, in place of `torch.optim.Adam`, which brings torch's compiler along: seconds in every process that trains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPS = 1e-8


class Adam:
    """Kingma & Ba 2015 (arXiv:1412.6980), algorithm 1; on processors equal to torch's to the bit.

    `decay` adds so much of a weight to its gradient. `means` and `squares` are the moments, like `params`; `steps` were
    taken. One that has gone so far goes on when they are set.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, *, betas: tuple[float, float] = BETAS, decay: float = 0.0):
        self.params, self.lr, self.steps = list(params), lr, 0
        self._betas, self._decay = betas, decay
        self.means = [torch.zeros_like(value) for value in self.params]
        self.squares = [torch.zeros_like(value) for value in self.params]

    @torch.no_grad()
    def step(self, slopes: Sequence[Tensor | None]) -> None:
        """Move the parameters in place, against their gradients; one without a gradient stays."""
        self.steps += 1
        first, second = self._betas
        rate = self.lr / (1 - first**self.steps)
        spread = (1 - second**self.steps) ** 0.5
        for value, slope, mean, square in zip(self.params, slopes, self.means, self.squares, strict=True):
            if slope is None:
                continue
            if self._decay:
                slope = slope.add(value, alpha=self._decay)
            mean.lerp_(slope, 1 - first)
            square.mul_(second).addcmul_(slope, slope, value=1 - second)
            value.addcdiv_(mean, (square.sqrt() / spread).add_(EPS), value=-rate)
