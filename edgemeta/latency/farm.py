"""Devices at work side by side: jobs wait in a queue, and what goes away is tried again, then set aside."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, final

from edgemeta.errors import BadProfile

from .inventory import Device
from .remote import Unreachable

GROWS = 2.0  # each pause is so much longer than the one before
LOOK_S = 0.2  # how long Ctrl-C may have to wait

J = TypeVar("J")
A = TypeVar("A")
Do = Callable[[Device, J, threading.Event], A]


class Answer(NamedTuple):
    """What became of the job of this position; `device` is "" and `value` None where no device was left to do it."""

    position: int
    device: str
    value: Any


@final
class Farm:
    """A set of devices; `lost` are those set aside, with the reason, and stays so from one `run` to the next."""

    def __init__(self, devices: Sequence[Device]):
        self.devices = tuple(devices)
        self.lost: dict[str, str] = {}

    @property
    def left(self) -> list[Device]:
        return [device for device in self.devices if device.name not in self.lost]

    def run(
        self, jobs: Sequence[J], do: Do[J, A], *, owners: Sequence[str] | None = None
    ) -> Generator[Answer, None, None]:
        """Let every device that is left take jobs, one at a time, until all are done; answers come as they are there.

        A job has an owner, the device that alone may do it, or without `owners` is anybody's. `do(device, job, stop)`
        runs in a thread of the device and ends early where `stop` is set. Where it raises `Unreachable` its job goes
        back to the front of the queue, and the device tries again after a pause that grows; after `tries` failures in
        a row, or any other `BadProfile`, it is set aside. Every other error ends the run.
        """
        return _Run(self, jobs, do, owners).answers()


class _Run(Generic[J, A]):
    """One call of `Farm.run`; what threads share is changed under `turn`."""

    def __init__(self, farm: Farm, jobs: Sequence[J], do: Do[J, A], owners: Sequence[str] | None):
        self.farm, self.jobs, self.do = farm, jobs, do
        self.owners: Sequence[str | None] = owners or [None] * len(jobs)
        self.waiting = list(range(len(jobs)))
        self.open = len(jobs)  # waiting or being done
        self.answered: list[Answer] = []
        self.turn, self.stop = threading.Condition(), threading.Event()
        self.failed: BaseException | None = None

    def answers(self) -> Generator[Answer, None, None]:
        threads = [threading.Thread(target=self._serve, args=(device,), daemon=True) for device in self.farm.left]
        for thread in threads:
            thread.start()
        try:
            told = 0
            while told < len(self.jobs):
                with self.turn:
                    self._give_up_orphans()
                    if not self.failed and len(self.answered) == told:
                        self.turn.wait(LOOK_S)
                    if self.failed:
                        raise self.failed
                    new = self.answered[told:]
                yield from new
                told += len(new)
        finally:
            self.stop.set()
            with self.turn:
                self.turn.notify_all()
            for thread in threads:
                thread.join()

    def _give_up_orphans(self) -> None:
        """Jobs whose owner is lost, or all that wait where every device is."""
        left = {device.name for device in self.farm.left}
        for job in [job for job in self.waiting if not left or self.owners[job] not in {None, *left}]:
            self.waiting.remove(job)
            self._close(Answer(job, "", None))

    def _close(self, answer: Answer) -> None:
        self.answered.append(answer)
        self.open -= 1
        self.turn.notify_all()

    def _serve(self, device: Device) -> None:
        failures = 0
        while (job := self._take(device)) is not None:
            try:
                value = self.do(device, self.jobs[job], self.stop)
            except BadProfile as error:
                failures += 1
                given_up = not isinstance(error, Unreachable) or failures >= device.tries
                self._return(device, job, str(error) if given_up else "")
                if given_up:
                    return
                self._rest(device.pause_s * GROWS ** (failures - 1))
            except BaseException as error:
                with self.turn:
                    self.failed = error
                    self.turn.notify_all()
                return
            else:
                failures = 0
                with self.turn:
                    self._close(Answer(job, device.name, value))

    def _take(self, device: Device) -> int | None:
        """The next job for a device; waits while another that has one may have to give it back."""
        with self.turn:
            while not self.stop.is_set() and self.open:
                for job in self.waiting:
                    if self.owners[job] in (None, device.name):
                        self.waiting.remove(job)
                        return job
                self.turn.wait()
        return None

    def _return(self, device: Device, job: int, given_up: str) -> None:
        with self.turn:
            self.waiting.insert(0, job)
            if given_up and not self.stop.is_set():
                self.farm.lost[device.name] = given_up
            self.turn.notify_all()

    def _rest(self, seconds: float) -> None:
        with self.turn:
            self.turn.wait_for(lambda: self.stop.is_set() or not self.open, timeout=seconds)
