"""Shared weights and task-specific ones: a small context vector is all that a task adapts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from edgemeta.contracts import Fast, Net, Params
from edgemeta.learners.inner import Scope


def context(net: Net, *, size: int = 32, generated: bool = True) -> Scope:
    """MetaNetwork: meta-trained weights theta, shared by all tasks, and w (size,), the only thing a task adapts.

    w modulates every norm of the body: gamma_i + w A_i and beta_i + w B_i, where A_i and B_i are meta-trained: FiLM
    (Perez 2018, arXiv:1709.07871, eq. 2) from context parameters (CAVIA, Zintgraf 2019, arXiv:1810.03642, eq. 5 and
    6). Where `generated`, w starts from the support's mean feature through a linear weight generator (as in CNAPs,
    Requeima 2019, arXiv:1906.07697), else from zero. fast: `context` (size,).

    Departure: the generator starts at zero, so meta-training begins at a network that no context changes.
    """
    widths = {i: op.out_shape[0] for i, op in enumerate(net.ops) if op.kind == "conv"}
    sample = f"film.{min(widths)}.gamma"

    def init(*, rng: torch.Generator) -> Params:
        slow = {
            f"film.{i}.{kind}": torch.randn(size, width, generator=rng) / size
            for i, width in widths.items()
            for kind in ("gamma", "beta")
        }
        return slow | ({"generator": torch.zeros(net.dim, size)} if generated else {})

    def start(slow: Params, mean: Callable[[], Tensor]) -> Fast:
        return {"context": mean() @ slow["generator"] if generated else slow[sample].new_zeros(size)}

    def weave(slow: Params, fast: Mapping[str, Tensor]) -> Params:
        shifted = {
            f"{i}.{kind}": slow[f"{i}.{kind}"] + fast["context"] @ slow[f"film.{i}.{kind}"]
            for i in widths
            for kind in ("gamma", "beta")
        }
        return {**slow, **shifted}

    return Scope(("context",), init, start, weave)
