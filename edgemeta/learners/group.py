"""Processes that torchrun started, joined: what each knows, and what went wrong on one, is known to all."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from edgemeta.errors import BadConfig, EdgemetaError, first_line
from edgemeta.learners.meeting import met
from edgemeta.processes import Place, ending_with_launcher, place

T = TypeVar("T")


class Group:
    """The processes of a training, this one among them. A context: leaving it parts them.

    A process that torchrun did not start is a group of its own. `device`: where gradients are, "cpu" or "cuda"; they
    meet over NCCL there, over gloo on processors. Each process of a machine has a device of its own.
    """

    def __init__(self, device: str = "cpu"):
        self.place: Place = place()
        self._nccl: Any = None
        self._watch = ExitStack()
        if not self.place.launched:
            return
        self._watch.enter_context(ending_with_launcher())
        if device == "cuda":
            _require_devices(self.place, torch.cuda.device_count())
            torch.cuda.set_device(self.place.local_rank)
        torch.set_num_threads(1)  # as in every worker: the last bit of a sum depends on how it is split
        rank, world = self.place.rank, self.place.world
        self._joined(lambda: dist.init_process_group("gloo", store=met(self.place), rank=rank, world_size=world))
        self.require_same({"device": device})
        if device == "cuda":
            self._nccl = self._joined(lambda: dist.new_group(backend="nccl"))

    @property
    def leads(self) -> bool:
        """Whether this process writes, validates and tells."""
        return self.place.rank == 0

    def gather(self, data: Tensor) -> list[Tensor]:
        """`data` (n,) uint8 of every process, in their order; n is the same on all."""
        if not self.place.launched:
            return [data]
        found = [torch.empty_like(data) for _ in range(self.place.world)]
        self._joined(lambda: dist.all_gather(found, data, group=self._nccl if data.is_cuda else None))
        return found

    def exchange(self, text: str) -> list[str]:
        """The text of every process, in their order."""
        own = text.encode()
        sizes = [int(size.view(torch.int64)) for size in self.gather(_bytes(len(own).to_bytes(8, "little")))]
        padded = self.gather(_bytes(own.ljust(max(sizes), b"\0")))
        return [data[:size].numpy().tobytes().decode() for data, size in zip(padded, sizes, strict=True)]

    def from_lead(self, make: Callable[[], bytes]) -> bytes:
        """What the leading process makes, on all; if it fails there, it fails on all."""
        data, failed = b"", None
        if self.leads:
            try:
                data = make()
            except Exception as error:
                failed = error
        self.refuse(failed)
        if self.place.world == 1:
            return data
        size = _bytes(len(data).to_bytes(8, "little"))
        self._joined(lambda: dist.broadcast(size, 0))
        sent = _bytes(data) if self.leads else torch.empty(int(size.view(torch.int64)), dtype=torch.uint8)
        self._joined(lambda: dist.broadcast(sent, 0))
        return sent.numpy().tobytes()

    def together(self, work: Callable[[], T]) -> T:
        """What each process finds for itself, first one of every machine, whose files the others then find.

        Where one fails, all do.
        """
        found: list[T] = []
        for first in (True, False):
            failed = None
            if (self.place.local_rank == 0) == first:
                try:
                    found.append(work())
                except Exception as error:
                    failed = error
            self.refuse(failed)
        return found[0]

    def refuse(self, failed: Exception | None) -> None:
        """Raise on every process what went wrong on one of them, in a line. All call it, with None if all is well."""
        told = first_line(failed) if failed else ""
        for rank, text in enumerate(self.exchange(json.dumps([socket.gethostname(), told]))):
            host, said = json.loads(text)
            if said and failed:
                raise failed
            if said:
                raise EdgemetaError(said if rank == 0 else f"process {rank} of {self.place.world} on {host}: {said}")

    def require_same(self, facts: Mapping[str, str]) -> None:
        """Refuse, on every process and in one line, what is not the same on all: name -> value."""
        everyone = [json.loads(text) for text in self.exchange(json.dumps([socket.gethostname(), dict(facts)]))]
        for name, ours in everyone[0][1].items():
            for rank, (host, theirs) in enumerate(everyone):
                if theirs.get(name) != ours:
                    raise BadConfig(
                        f"{name} of process {rank} on {host} is {theirs.get(name)}, of process 0 {ours}: all train the "
                        "same; copy the run folder and the data there, and start with the same flags and versions"
                    )

    def _joined(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except RuntimeError as error:
            raise EdgemetaError(
                "another process of this training is gone; start all again to go on from the last checkpoint, which "
                "`torchrun --max-restarts N` does by itself"
            ) from error

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._watch.close()
        if self.place.launched and not (error and self._nccl):  # NCCL would wait for those that are gone
            dist.destroy_process_group()


def digest(*parts: bytes | memoryview | str) -> str:
    """A short name, equal for equal parts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
    return found.hexdigest()[:16]


def _require_devices(here: Place, devices: int) -> None:
    if here.local_world > devices:
        raise BadConfig(
            f"torchrun started {here.local_world} processes here, and there are {devices} CUDA devices; give "
            f"--nproc-per-node {devices}, or --accelerator cpu"
        )


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
