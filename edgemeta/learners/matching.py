"""Matching Networks: a query's label is the mean of the support's, weighted by how similar they look."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from edgemeta.contracts import Fast, Learner, Net, Params, Support
from edgemeta.learners.cells import lstm, lstm_init, zeros
from edgemeta.learners.inner import DONE, normal

PADDED = -1e4  # similarity of a padding row: its weight underflows to zero
LEAST = 1e-6  # probability


def matching(
    net: Net,
    *,
    name: str = "matching",
    full_context: bool = False,
    width: int = 32,
    reads: int = 3,
    scale: float = 10.0,
) -> Learner:
    """Matching Networks (Vinyals 2016, arXiv:1606.04080).

    slow: the body, `head.log_scale` () of the cosine, and with `full_context` a projection to `width` numbers and the
    LSTMs of the full-context embeddings. fast: `keys` (n, d or width), the support's embeddings, and `labels` (n, way):
    all examples are kept, so a device's memory grows with them. With `full_context` also `done` (1,), examples read,
    and the LSTMs' states (width,): a `step` reads one example from the front and one from the back then, so that there
    are as many steps as examples.

    Departures. The cosine is multiplied by a learned scale: between -1 and 1 the softmax of eq. 2 cannot be sure of
    anything. Features are layer-normalised. Each class weighs alike, however many examples it has: the sum of eq. 1
    would lean to the largest. Full-context embeddings see features projected to `width` numbers, for LSTMs as wide as
    the features would outweigh the body; they read the support in the order it is given in.
    """

    def init(*, rng: torch.Generator) -> Params:
        slow = {**net.init(rng=rng), "head.log_scale": torch.tensor(math.log(scale))}
        if not full_context:
            return slow
        slow["head.project"] = torch.randn(net.dim, width, generator=rng) / math.sqrt(net.dim)
        cells = {"head.forward": width, "head.backward": width, "head.query": 2 * width}
        for cell, inputs in cells.items():
            slow |= lstm_init(cell, inputs, width, rng=rng)
        return slow

    def embed(slow: Params, x: Tensor) -> Tensor:
        return normal(normal(x) @ slow["head.project"]) if full_context else normal(x)

    def start(slow: Params, support: Support) -> Fast:
        if not full_context:
            return {"keys": torch.zeros_like(support.x), "labels": torch.zeros_like(support.onehot)}
        blank = support.x.new_zeros
        states = {f"{cell}.{part}": blank(width) for cell in ("forward", "backward") for part in ("hidden", "cell")}
        return {"keys": embed(slow, support.x), "labels": support.onehot, DONE: blank(1)} | states

    def step(slow: Params, fast: Fast, support: Support) -> Fast:
        if full_context:
            return in_context(slow, fast, embed(slow, support.x), support.onehot.sum(1, keepdim=True))
        return {"keys": embed(slow, support.x), "labels": support.onehot}

    def predict(slow: Params, fast: Fast, x: Tensor) -> Tensor:
        """Logits (n, way). Source: eq. 1 and 2."""
        query = embed(slow, x)
        if full_context:
            query = attentive(slow, query, fast, reads)
        return (attention(slow, query, fast) @ fast["labels"] + LEAST).log()

    return Learner(name, net, True, None if full_context else 1, init, start, step, predict)


def attention(slow: Params, query: Tensor, fast: Fast) -> Tensor:
    """Weights (q, n) of the support for each query, from the cosine; every class weighs alike, however large."""
    labels = fast["labels"]
    share = (labels @ labels.sum(0)).clamp_min(1.0).log()
    similar = normalize(query, dim=1) @ normalize(fast["keys"], dim=1).T
    return torch.softmax(slow["head.log_scale"].exp() * similar - share + PADDED * (1 - labels.sum(1)), 1)


def in_context(slow: Params, fast: Fast, keys: Tensor, seen: Tensor) -> Fast:
    """Each of the LSTMs of eq. 9, g, reads one example more of keys (n, width), one from the front, one from the back.

    What they say of an example is added to its key. Padding, seen (n, 1) = 0, leaves their states as they are.
    """
    new, n = dict(fast), keys.shape[0]
    for cell, at in (("forward", fast[DONE]), ("backward", n - 1 - fast[DONE])):
        turn = (torch.arange(n, device=keys.device) == at).to(keys.dtype)[:, None]
        state, present = (fast[f"{cell}.hidden"], fast[f"{cell}.cell"]), (turn * seen).sum()
        after = lstm(slow, f"head.{cell}", (turn * keys).sum(0), state)
        hidden, kept = (present * now + (1 - present) * before for now, before in zip(after, state, strict=True))
        new |= {f"{cell}.hidden": hidden, f"{cell}.cell": kept, "keys": new["keys"] + turn * seen * hidden}
    return new | {DONE: fast[DONE] + 1}


def attentive(slow: Params, query: Tensor, fast: Fast, reads: int) -> Tensor:
    """Each query after `reads` looks at the support: f of eq. 3 to 6, an LSTM with attention (q, width)."""
    state, read = zeros(query, *query.shape), torch.zeros_like(query)
    for _ in range(reads):
        hidden, cell = lstm(slow, "head.query", torch.cat([query, read], 1), state)
        state = hidden + query, cell
        read = attention(slow, state[0], fast) @ fast["keys"]
    return state[0]
