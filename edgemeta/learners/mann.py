"""Memory-augmented neural network: a Neural Turing Machine that writes what it has seen and reads it back."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from edgemeta.contracts import Fast, Learner, Net, Params, Support
from edgemeta.errors import BadData
from edgemeta.learners.cells import lstm, lstm_init
from edgemeta.learners.inner import normal

UNUSED = 1e-6  # usage of each slot before the first example, times its place: no ties, which runtimes break differently


def mann(
    net: Net,
    *,
    controller: int = 64,
    slots: int = 128,
    width: int = 32,
    reads: int = 1,
    most_ways: int = 32,
    decay: float = 0.95,
) -> Learner:
    """Meta-learning with memory-augmented neural networks (Santoro 2016, proceedings.mlr.press/v48/santoro16).

    An LSTM controller reads one example at a time with its label, addresses an external memory by content with `reads`
    read heads, and writes either to the slots it has just read or to the least recently used ones. A query, without
    a label, is read from the memory and changes nothing.

    slow: the body, a projection of features to `width` numbers, the controller, the heads. fast: `memory` (slots,
    width), `usage` (slots,), `read` (reads, slots), the last read weights, `hidden` and `cell` (controller,), `done`
    (1,) examples seen, and `seen` (way,), the examples of each class. `step` takes in the example at row `done` of the
    support: as many steps as examples.

    Departures. An example comes with its own label, not the one of the example before: support and queries are apart.
    Labels are one-hot among `most_ways`. What is read goes to the output, not to the controller's next step. Each read
    head writes to a spare slot of its own.
    """
    inputs = width + most_ways

    def init(*, rng: torch.Generator) -> Params:
        def linear(name: str, fan_in: int, fan_out: int) -> Params:
            weight = torch.randn(fan_in, fan_out, generator=rng) / math.sqrt(fan_in)
            return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(fan_out)}

        slow = {**net.init(rng=rng), **linear("project", net.dim, width)}
        slow |= lstm_init("controller", inputs, controller, rng=rng)
        slow |= linear("keys", controller + inputs, reads * width)
        slow |= linear("out", controller + reads * width, most_ways)
        return slow | {"gate": torch.tensor(-2.0), "sharpness": torch.tensor(1.0)}

    def start(slow: Params, support: Support) -> Fast:
        zeros, way = support.x.new_zeros, support.onehot.shape[1]
        if way > most_ways:
            raise BadData(f"{way} ways are more than this memory tells apart; build it with most_ways={way}")
        unused = UNUSED * torch.arange(slots, dtype=support.x.dtype, device=support.x.device)
        blank = {"memory": zeros(slots, width) + 1e-6, "usage": unused, "read": zeros(reads, slots)}
        state = {"hidden": zeros(controller), "cell": zeros(controller)}
        return blank | state | {"done": zeros(1), "seen": zeros(way)}

    def control(slow: Params, fast: Fast, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden, cell (n, controller) and keys (n, reads, width) of features (n, d) with labels (n, most_ways)."""
        z = torch.tanh(normal(x) @ slow["project.weight"] + slow["project.bias"])
        state = fast["hidden"].expand(x.shape[0], -1), fast["cell"].expand(x.shape[0], -1)
        seen = torch.cat([z, label], 1)
        hidden, cell = lstm(slow, "controller", seen, state)
        keys = torch.tanh(torch.cat([hidden, seen], 1) @ slow["keys.weight"] + slow["keys.bias"])
        return hidden, cell, keys.view(x.shape[0], reads, width)

    def step(slow: Params, fast: Fast, support: Support) -> Fast:
        """Source: eq. 5 to 8; the memory is read after it was written."""
        turn = (torch.arange(support.x.shape[0], device=support.x.device) == fast["done"]).to(support.x.dtype)[None]
        label = turn @ support.onehot
        padded = torch.cat([label, label.new_zeros(1, most_ways - label.shape[1])], 1)
        hidden, cell, keys = control(slow, fast, turn @ support.x, padded)
        spare = one_hot(fast["usage"].topk(reads, largest=False).indices, slots).to(keys.dtype)  # (reads, slots)
        write = torch.sigmoid(slow["gate"]) * fast["read"] + torch.sigmoid(-slow["gate"]) * spare
        memory = fast["memory"] * (1 - spare.sum(0))[:, None] + write.T @ keys[0]
        read = attend(slow, keys[0], memory)
        usage = decay * fast["usage"] + (read + write).sum(0)
        new = {"memory": memory, "usage": usage, "read": read, "hidden": hidden[0], "cell": cell[0]}
        present = label.sum()  # 0: padding, or past the last row
        kept = {name: present * value + (1 - present) * fast[name] for name, value in new.items()}
        return kept | {"done": fast["done"] + 1, "seen": fast["seen"] + label[0]}

    def predict(slow: Params, fast: Fast, x: Tensor) -> Tensor:
        """Logits (n, way)."""
        unlabelled = x.new_zeros(x.shape[0], most_ways)
        hidden, _, keys = control(slow, fast, x, unlabelled)
        read = attend(slow, keys, fast["memory"]) @ fast["memory"]
        logits = torch.cat([hidden, read.flatten(1)], 1) @ slow["out.weight"] + slow["out.bias"]
        return logits[:, : fast["seen"].shape[0]]

    return Learner("mann", net, True, None, init, start, step, predict)


def attend(slow: Params, keys: Tensor, memory: Tensor) -> Tensor:
    """Read weights (..., slots) of keys (..., width). Source: eq. 2 and 3, with a learned sharpness."""
    similar = normalize(keys, dim=-1) @ normalize(memory, dim=-1).T
    return torch.softmax((1 + slow["sharpness"].exp()) * similar, -1)
