"""The memory-augmented network: one write and one read worked out by hand, and what follows from several."""

from __future__ import annotations

import math

import pytest
import torch

from edgemeta.contracts import Fast, Params, Support
from edgemeta.errors import BadData
from edgemeta.learners.mann import mann
from edgemeta.learners.train import adapt
from edgemeta.nets.build import build
from edgemeta.types import Op
from tests.learners.doubles import DOUBLE, compare, layer_normal, seeded, small_net, torchs_cell

CLEAR = 50.0  # saturates a sigmoid or a tanh to the last digit

# A controller of one unit that says what the label is: its gates always let in and out and never keep (biases +-50),
# its candidate is tanh(50 (label 0 - label 1)). For class 0, cell = 1 and hidden = tanh(1) = 0.761594, for class 1 both
# negative, without a label 0. Keys are (tanh 50, tanh(50 hidden)): (1, 1) for class 0, (1, -1) for 1, else (1, 0).
HIDDEN = math.tanh(1.0)


@pytest.fixture
def learner():
    return mann(build((Op("conv", (1, 1, 1), (2, 1, 1)),)), controller=1, slots=3, width=2, most_ways=2)


@pytest.fixture
def slow(learner) -> Params:
    blank = {name: torch.zeros_like(value).double() for name, value in learner.init(rng=seeded(0)).items()}
    label = torch.zeros(4, 4, **DOUBLE)  # from (two features, two labels) to (input, forget, candidate, output)
    label[2, 2], label[3, 2] = CLEAR, -CLEAR
    keys = torch.zeros(5, 2, **DOUBLE)  # from hidden, two features and two labels
    keys[0, 1] = CLEAR
    out = torch.tensor([[0.5, 0.0], [1.0, 1.0], [2.0, -2.0]], **DOUBLE)  # from (hidden, what was read)
    return blank | {
        "controller.input": label,
        "controller.bias": torch.tensor([CLEAR, -CLEAR, 0.0, CLEAR], **DOUBLE),
        "keys.weight": keys,
        "keys.bias": torch.tensor([CLEAR, 0.0], **DOUBLE),
        "out.weight": out,
        "out.bias": torch.tensor([0.1, 0.0], **DOUBLE),
    }


@pytest.fixture
def before(learner, slow) -> Fast:
    """A memory in use: what was read last, and what was used least, the slot in the middle."""
    fast = learner.start(slow, example())
    return fast | {
        "memory": torch.tensor([[1.0, 1.0], [3.0, 3.0], [1.0, -1.0]], **DOUBLE),
        "usage": torch.tensor([0.5, 0.1, 0.3], **DOUBLE),
        "read": torch.tensor([[0.8, 0.0, 0.2]], **DOUBLE),
    }


def example(label: int = 0) -> Support:
    return Support(torch.zeros(1, 2, **DOUBLE), torch.eye(2, **DOUBLE)[[label]])


def same(got, want, digits=1e-5) -> None:
    torch.testing.assert_close(got, torch.tensor(want, **DOUBLE), rtol=0, atol=digits)


def test_one_write_by_hand(learner, slow, before):
    """gate = 0: a write is half of the last read, (0.8, 0, 0.2) / 2, and half of the least used slot, (0, 1, 0) / 2:
    (0.4, 0.5, 0.1). That slot is emptied first; the key is (1, 1).

    memory = (1, 1) + 0.4 (1, 1), 0 + 0.5 (1, 1), (1, -1) + 0.1 (1, 1) = (1.4, 1.4), (0.5, 0.5), (1.1, -0.9).
    Cosines with the key: 1, 1 and (1.1 - 0.9) / (sqrt(2) sqrt(1.1^2 + 0.9^2)) = 0.2 / 2.009975 = 0.099504.
    sharpness = 0: twice the cosines; e^2 = 7.389056, 7.389056, e^0.199007 = 1.220190, of 15.998302 in all:
    read = 0.461865, 0.461865, 0.076270.
    usage = 0.95 (0.5, 0.1, 0.3) + read + write = 1.336865, 1.056865, 0.461270.
    """
    after = learner.step(slow, before, example())
    same(after["memory"], [[1.4, 1.4], [0.5, 0.5], [1.1, -0.9]])
    same(after["read"], [[0.461865, 0.461865, 0.076270]])
    same(after["usage"], [1.336865, 1.056865, 0.461270])
    same(after["hidden"], [HIDDEN])
    same(after["cell"], [1.0])
    same(after["done"], [1.0])
    same(after["seen"], [1.0, 0.0])


def test_one_read_by_hand(learner, slow, before):
    """A query has no label: its hidden state is 0 and its key (1, 0).

    Cosines with (1.4, 1.4), (0.5, 0.5), (1.1, -0.9): 0.707107, 0.707107, 1.1 / 1.421267 = 0.773957. Twice that:
    e^1.414214 = 4.113250 two times, e^1.547915 = 4.701656, of 12.928156: weights 0.318162, 0.318162, 0.363675.
    Read: 0.318162 (1.9, 1.9) + 0.363675 (1.1, -0.9) = (1.004551, 0.277201).
    Logits: 1.004551 + 2 * 0.277201 + 0.1 = 1.658953 and 1.004551 - 2 * 0.277201 = 0.450149.
    """
    after = learner.step(slow, before, example())
    same(learner.predict(slow, after, torch.zeros(1, 2, **DOUBLE)), [[1.658953, 0.450149]])


@pytest.mark.parametrize(("gate", "write"), [(CLEAR, (0.8, 0.0, 0.2)), (-CLEAR, (0.0, 1.0, 0.0))])
def test_the_gate_chooses_between_what_was_read_and_what_is_spare(gate, write, learner, slow, before):
    after = learner.step(slow | {"gate": torch.tensor(gate, **DOUBLE)}, before, example(1))
    kept = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, -1.0]], **DOUBLE)
    key = torch.tensor([1.0, -1.0], **DOUBLE)
    torch.testing.assert_close(after["memory"], kept + torch.tensor(write, **DOUBLE)[:, None] * key)


def test_examples_fill_one_slot_after_another(learner, slow):
    """Slots never used are used first, in their order: ties would be broken differently from runtime to runtime."""
    slow = slow | {"gate": torch.tensor(-CLEAR, **DOUBLE), "sharpness": torch.tensor(4.0, **DOUBLE)}
    support = Support(torch.zeros(3, 2, **DOUBLE), torch.eye(2, **DOUBLE)[[0, 1, 0]])
    fast, written = learner.start(slow, support), []
    for _ in range(3):
        after = learner.step(slow, fast, support)
        changed = (after["memory"] - fast["memory"]).abs().sum(1) > 0.5
        written.append(changed.nonzero().flatten().tolist())
        fast = after
    assert written == [[0], [1], [2]]
    same(fast["memory"], [[1, 1], [1, -1], [1, 1]])


def test_each_read_head_has_a_spare_slot_of_its_own():
    learner = mann(small_net(), controller=4, slots=5, width=3, reads=2, most_ways=3)
    slow = learner.init(rng=seeded(0)) | {"gate": torch.tensor(-CLEAR)}
    support = Support(torch.randn(1, learner.net.dim, generator=seeded(1)), torch.eye(3)[:1])
    fast = learner.step(slow, learner.start(slow, support), support)
    assert ((fast["memory"].abs().sum(1) > 1e-3).tolist()) == [True, True, False, False, False]
    assert fast["read"].shape == (2, 5)


def test_padding_and_rows_past_the_last_change_nothing_but_the_count():
    learner = mann(small_net(), most_ways=3)
    slow = learner.init(rng=seeded(0))
    x = torch.randn(5, learner.net.dim, generator=seeded(1))
    onehot = torch.eye(3)[[0, 1, 2, 0, 1]]
    plain = adapt(learner, slow, Support(x[:3], onehot[:3]))
    blank = torch.cat([onehot[:2], torch.zeros(2, 3), onehot[2:3]])
    between = adapt(learner, slow, Support(torch.cat([x[:2], x[3:], x[2:3]]), blank))
    past = learner.step(slow, plain, Support(x[:3], onehot[:3]))
    for name in set(plain) - {"done"}:
        torch.testing.assert_close(between[name], plain[name], rtol=0, atol=0)
        torch.testing.assert_close(past[name], plain[name], rtol=0, atol=0)
    assert (plain["done"], between["done"], past["done"]) == (3, 5, 4)


def test_more_ways_than_labels_are_refused(learner, slow):
    with pytest.raises(BadData, match="3 ways are more than this memory tells apart; build it with most_ways=3"):
        learner.start(slow, Support(torch.zeros(3, 2), torch.eye(3)))


@pytest.mark.parametrize("reads", [1, 2])
def test_meta_gradient_is_that_of_loops(reads):
    """Slot by slot and head by head, as the paper writes it (eq. 2 to 8)."""
    size, slots, width, ways = 4, 5, 3, 4
    learner = mann(small_net(), controller=size, slots=slots, width=width, reads=reads, most_ways=ways)

    def read_weights(slow, key, memory):
        cosine = torch.stack([key @ slot / (key.norm() * slot.norm()) for slot in memory])
        return torch.softmax((1 + slow["sharpness"].exp()) * cosine, 0)

    def controlled(slow, z, label, state):
        z = torch.tanh(layer_normal(z) @ slow["project.weight"] + slow["project.bias"])
        hidden, memory_cell = torchs_cell(slow, "controller")(torch.cat([z, label]), state)
        keys = torch.tanh(torch.cat([hidden, z, label]) @ slow["keys.weight"] + slow["keys.bias"])
        return (hidden, memory_cell), [keys[r * width : (r + 1) * width] for r in range(reads)]

    def logits(slow, z, labels, queries):
        memory = [torch.full((width,), 1e-6, **DOUBLE)] * slots
        usage = list(1e-6 * torch.arange(slots, **DOUBLE))
        state = (torch.zeros(size, **DOUBLE), torch.zeros(size, **DOUBLE))
        last = [torch.zeros(slots, **DOUBLE)] * reads
        gate = torch.sigmoid(slow["gate"])
        for example, label in zip(z, labels, strict=True):
            state, keys = controlled(slow, example, torch.eye(ways, **DOUBLE)[label], state)
            spare = sorted(range(slots), key=lambda s: usage[s])[:reads]
            writes = [[gate * last[r][s] + (1 - gate) * (s == spare[r]) for s in range(slots)] for r in range(reads)]
            memory = [torch.zeros(width, **DOUBLE) if s in spare else slot for s, slot in enumerate(memory)]
            memory = [slot + sum(writes[r][s] * keys[r] for r in range(reads)) for s, slot in enumerate(memory)]
            last = [read_weights(slow, key, memory) for key in keys]
            usage = [0.95 * usage[s] + sum(last[r][s] + writes[r][s] for r in range(reads)) for s in range(slots)]
        found = []
        for query in queries:
            (hidden, _), keys = controlled(slow, query, torch.zeros(ways, **DOUBLE), state)
            read = [read_weights(slow, key, memory) @ torch.stack(memory) for key in keys]
            found.append(torch.cat([hidden, *read]) @ slow["out.weight"] + slow["out.bias"])
        return torch.stack(found)[:, :3]

    gradient = compare(learner, logits)
    assert all(value.abs().max() > 0 for value in gradient.values())
