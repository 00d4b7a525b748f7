"""Matching Networks: a query's label is the mean of the support's, weighted by how similar they look."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from edgemeta.contracts import Fast, Learner, Net, Params, Support
from edgemeta.learners.cells import lstm, lstm_init, zeros
from edgemeta.learners.inner import normal

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
    all examples are kept, so a device's memory grows with them.

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
        wide = width if full_context else support.x.shape[1]
        return {"keys": support.x.new_zeros(len(support.x), wide), "labels": torch.zeros_like(support.onehot)}

    def step(slow: Params, fast: Fast, support: Support) -> Fast:
        keys = embed(slow, support.x)
        seen = support.onehot.sum(1, keepdim=True)
        return {"keys": (in_context(slow, keys, seen) if full_context else keys) * seen, "labels": support.onehot}

    def predict(slow: Params, fast: Fast, x: Tensor) -> Tensor:
        """Logits (n, way). Source: eq. 1 and 2."""
        query = embed(slow, x)
        if full_context:
            query = attentive(slow, query, fast, reads)
        return (attention(slow, query, fast) @ fast["labels"] + LEAST).log()

    return Learner(name, net, True, 1, init, start, step, predict)


def attention(slow: Params, query: Tensor, fast: Fast) -> Tensor:
    """Weights (q, n) of the support for each query, from the cosine; every class weighs alike, however large."""
    labels = fast["labels"]
    share = (labels @ labels.sum(0)).clamp_min(1.0).log()
    similar = normalize(query, dim=1) @ normalize(fast["keys"], dim=1).T
    return torch.softmax(slow["head.log_scale"].exp() * similar - share + PADDED * (1 - labels.sum(1)), 1)


def in_context(slow: Params, keys: Tensor, seen: Tensor) -> Tensor:
    """Each example in the context of all: g of eq. 9, a bidirectional LSTM over keys (n, width), added to them.

    Padding, seen (n, 1) = 0, leaves the state as it is.
    """
    runs = []
    for cell, order in (("head.forward", range(len(keys))), ("head.backward", reversed(range(len(keys))))):
        state, hidden = zeros(keys, keys.shape[1]), {}
        for i in order:
            new = lstm(slow, cell, keys[i], state)
            state = seen[i] * new[0] + (1 - seen[i]) * state[0], seen[i] * new[1] + (1 - seen[i]) * state[1]
            hidden[i] = state[0]
        runs.append(torch.stack([hidden[i] for i in range(len(keys))]))
    return keys + runs[0] + runs[1]


def attentive(slow: Params, query: Tensor, fast: Fast, reads: int) -> Tensor:
    """Each query after `reads` looks at the support: f of eq. 3 to 6, an LSTM with attention (q, width)."""
    state, read = zeros(query, *query.shape), torch.zeros_like(query)
    for _ in range(reads):
        hidden, cell = lstm(slow, "head.query", torch.cat([query, read], 1), state)
        state = hidden + query, cell
        read = attention(slow, state[0], fast) @ fast["keys"]
    return state[0]
