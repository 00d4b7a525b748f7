"""One update's tasks in shards, on this process or on several: the answer does not depend on how many."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from edgemeta.contracts import Learner, Params
from edgemeta.data.episode import Draw, Pool
from edgemeta.errors import EdgemetaError, first_line
from edgemeta.learners.checkpoint import Progress
from edgemeta.learners.memory import keep_freed_memory
from edgemeta.learners.outer import STATISTICS, Tasks, laid_out, meta_gradient, trained
from edgemeta.processes import context, settle

Drawn = Sequence[tuple[int, Draw]]  # (position of the pool, what was drawn from it)
Judge = Callable[[Params], float]  # validation accuracy, 0..1
PATIENCE_S = 5.0  # for the system to say how a worker ended


class Update(NamedTuple):
    """What a batch of tasks says: mean loss, mean gradient, and the running statistics after it."""

    loss: float
    gradient: dict[str, Tensor]
    statistics: dict[str, Tensor]


def gather(pools: Sequence[Pool], drawn: Drawn) -> Tasks:
    """The images of drawn tasks, side by side."""
    way, shot = drawn[0][1].support.shape
    query = drawn[0][1].query.shape[1]
    x = torch.stack([pools[place].images(chosen.support.ravel()) for place, chosen in drawn])
    query_x = torch.stack([pools[place].images(chosen.query.ravel()) for place, chosen in drawn])
    onehot = torch.eye(way).repeat_interleave(shot, 0).repeat(len(drawn), 1, 1)
    query_y = torch.arange(way).repeat_interleave(query).repeat(len(drawn), 1)
    return Tasks(x, onehot, query_x, query_y)


def shard(learner: Learner, slow: Params, tasks: Tasks, weights: Sequence[float]) -> Update:
    """A shard's own answer; `slow` is not touched."""
    own = {name: value.clone() if name.startswith(STATISTICS) else value for name, value in slow.items()}
    try:
        loss, gradient = meta_gradient(learner, own, tasks, weights)
        found = float(loss)
    except torch.linalg.LinAlgError:  # an equation without a solution: what went in was no number
        found, gradient = math.nan, {name: torch.zeros_like(value) for name, value in trained(own).items()}
    statistics = {name: value for name, value in own.items() if name.startswith(STATISTICS)}
    return Update(found, {name: laid_out(value) for name, value in gradient.items()}, statistics)


def merged(updates: Sequence[Update]) -> Update:
    """The mean over shards, summed in their order."""

    def mean(field: str) -> dict[str, Tensor]:
        first, *others = (getattr(update, field) for update in updates)
        return {name: sum((other[name] for other in others), value) / len(updates) for name, value in first.items()}

    if len(updates) == 1:
        return updates[0]
    return Update(sum(update.loss for update in updates) / len(updates), mean("gradient"), mean("statistics"))


def parts_of(tasks: Tasks, shards: int) -> list[Tasks]:
    """The tasks in so many equal parts."""
    return [Tasks(*pieces) for pieces in zip(*(field.chunk(shards) for field in tasks), strict=True)]


class Team:
    """Processes that share an update's shards with this one. A context: leaving it ends them.

    `make` builds the learners, in each process anew; it must be picklable: a function of a module, or a partial of one.
    Every process computes with as many threads as this one, for sums depend on how they are split.
    """

    def __init__(self, make: Callable[[], Sequence[Learner]], workers: int = 1):
        self.learners = make()
        start = context()
        self._links: list[Connection] = []
        self._processes = []
        for _ in range(workers - 1):
            here, there = start.Pipe()
            process = start.Process(target=_serve, args=(there, make, torch.get_num_threads()), daemon=True)
            process.start()
            there.close()  # so that the link breaks when the process ends
            self._links.append(here)
            self._processes.append(process)

    def begin(self, progress: Progress) -> Progress:
        """Where a training starts: the other processes need not know."""
        return progress

    def judged(self, judge: Judge) -> Judge:
        """Who validates: this process does."""
        return judge

    def update(
        self, which: int, slow: Params, tasks: Tasks, weights: Sequence[float], *, shards: int, device: torch.device
    ) -> Update:
        """The update of learner `which`, of tasks in `shards` equal parts, dealt out in turn."""
        parts = parts_of(tasks, shards)
        turns = 1 + len(self._links)
        asked = [turn for turn in range(1, turns) if turn < shards]
        for turn in asked:
            theirs = [_arrays(part._asdict()) for part in parts[turn::turns]]
            self._send(turn, (which, _arrays(slow), theirs, tuple(weights), str(device)))
        found = {}
        for i in range(0, shards, turns):
            own = Tasks(*(field.to(device, copy=True) for field in parts[i]))
            found[i] = shard(self.learners[which], slow, own, weights)
        for turn in asked:
            answers = [Update(loss, *(_tensors(part, device) for part in rest)) for loss, *rest in self._receive(turn)]
            found |= zip(range(turn, shards, turns), answers, strict=True)
        return merged([found[i] for i in range(shards)])

    def _send(self, turn: int, message: Any) -> None:
        try:
            self._links[turn - 1].send(message)
        except OSError as error:
            raise self._lost(turn) from error

    def _receive(self, turn: int) -> Any:
        try:
            answer = self._links[turn - 1].recv()
        except (EOFError, OSError) as error:
            raise self._lost(turn) from error
        if isinstance(answer, str):
            raise EdgemetaError(f"a training worker failed: {answer}; run again with one worker for the whole story")
        return answer

    def _lost(self, turn: int) -> EdgemetaError:
        process = self._processes[turn - 1]
        process.join(PATIENCE_S)
        return EdgemetaError(
            f"a training worker ended (exit code {process.exitcode}); run the same again to go on, with fewer workers "
            "if memory was short (a script of your own must start below `if __name__ == '__main__':`)"
        )

    def __enter__(self) -> Team:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes:
            process.kill()  # there is nothing in it that is not here
        for process, link in zip(self._processes, self._links, strict=True):
            process.join()
            link.close()


def _serve(link: Connection, make: Callable[[], Sequence[Learner]], threads: int) -> None:
    """Answer until the other end closes, which it does when its process ends, too."""
    settle()
    torch.set_num_threads(threads)
    keep_freed_memory()
    learners = make()
    try:
        while True:
            link.send(_answer(learners, *link.recv()))
    except (EOFError, OSError):
        return


def _answer(
    learners: Sequence[Learner], which: int, slow: dict[str, Any], parts: Any, weights: Sequence[float], device: str
) -> list[tuple] | str:
    """Updates of the parts; or what went wrong, for the other process to say."""
    try:
        own = _tensors(slow, device)
        for value in trained(own).values():
            value.requires_grad_()
        updates = [shard(learners[which], own, Tasks(**_tensors(part, device)), weights) for part in parts]
        return [(update.loss, _arrays(update.gradient), _arrays(update.statistics)) for update in updates]
    except Exception as error:
        return first_line(error)


def _arrays(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name: value.detach().cpu().numpy() for name, value in tensors.items()}


def _tensors(arrays: dict[str, Any], device: str | torch.device) -> dict[str, Tensor]:
    """Copies in torch's own memory and layout: the last bit of a sum may depend on how its operands lie."""
    return {name: laid_out(torch.from_numpy(value).clone().to(device)) for name, value in arrays.items()}
