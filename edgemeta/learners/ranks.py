"""One update's tasks shared by the processes that torchrun started: a `Team` over machines and devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from edgemeta.contracts import Learner, Params
from edgemeta.learners.checkpoint import Progress, packed, unpacked
from edgemeta.learners.group import Group
from edgemeta.learners.outer import STATISTICS, Tasks, laid_out
from edgemeta.learners.shards import Judge, Update, merged, parts_of, shard


class Ranks:
    """Shares an update's shards as `Team` does, among processes that all train: each takes every step itself.

    What the shards gave goes to every process as bytes, and each merges them in the order of the shards, not of who was
    first: parameters are the same on all, and the same as one process alone would find (on a processor to the bit).
    """

    def __init__(self, make: Callable[[], Sequence[Learner]], group: Group):
        self.learners, self.group = make(), group

    def begin(self, progress: Progress) -> Progress:
        """The leading process's, which read the checkpoint, once it is sure that all train the same on the same."""
        self.group.require_same({"the training (settings, start or data)": progress.identity[:16]})
        at = next(iter(progress.slow.values())).device
        sent = self.group.from_lead(lambda: packed(progress))
        return progress if self.group.leads else unpacked(sent, at)

    def judged(self, judge: Judge) -> Judge:
        """The judge, asked by the leading process alone: all go by one score, to the bit."""
        return lambda slow: float(self.group.from_lead(lambda: repr(float(judge(slow))).encode()))

    def update(
        self, which: int, slow: Params, tasks: Tasks, weights: Sequence[float], *, shards: int, device: torch.device
    ) -> Update:
        """The update of learner `which`, of tasks in `shards` equal parts, dealt to the processes in turn."""
        turn, turns = self.group.place.rank, self.group.place.world
        mine, failed = [], None
        try:
            for part in parts_of(tasks, shards)[turn::turns]:
                own = Tasks(*(field.to(device, copy=True) for field in part))
                mine.append(_packed(shard(self.learners[which], slow, own, weights), slow))
        except Exception as error:  # the others wait for an answer
            failed = error
        empty, most = torch.zeros(_size(slow), dtype=torch.uint8, device=device), -(-shards // turns)
        rows = [*mine, *[empty] * most][:most]
        answers = self.group.gather(torch.cat([empty.new_tensor([failed is not None]), *rows]))
        if torch.stack([answer[0] for answer in answers]).any():
            self.group.refuse(failed)
        dealt = [answer[1:].view(most, -1) for answer in answers]
        return merged([_unpacked(dealt[i % turns][i // turns], slow) for i in range(shards)])


HEAD = 8  # bytes of the loss, a float64; after it a byte for each parameter says whether it has a gradient


def _size(slow: Params) -> int:
    return HEAD + len(slow) + sum(value.numel() * value.element_size() for value in slow.values())


def _packed(update: Update, slow: Params) -> Tensor:
    """(n,) uint8: the loss, what is there, and gradient or statistics of every parameter in the order of `slow`."""
    given = update.gradient | update.statistics
    at = next(iter(slow.values())).device
    loss = torch.tensor([update.loss], dtype=torch.float64).view(torch.uint8).to(at)
    there = torch.tensor([name in given for name in slow], dtype=torch.uint8, device=at)
    values = [given[name] if name in given else torch.zeros_like(value) for name, value in slow.items()]
    return torch.cat([loss, there, *(value.detach().contiguous().view(-1).view(torch.uint8) for value in values)])


def _unpacked(data: Tensor, slow: Params) -> Update:
    """In torch's own memory and layout, as a shard's own answer is: the last bit of a sum may depend on it."""
    loss, there = float(data[:HEAD].clone().view(torch.float64)), data[HEAD : HEAD + len(slow)].tolist()
    sizes = [value.numel() * value.element_size() for value in slow.values()]
    gradient, statistics = {}, {}
    for (name, like), own, is_there in zip(slow.items(), data[HEAD + len(slow) :].split(sizes), there, strict=True):
        value = own.clone().view(like.dtype).view(like.shape)
        if name.startswith(STATISTICS):
            statistics[name] = value
        elif is_there:
            gradient[name] = laid_out(value)
    return Update(loss, gradient, statistics)
