"""Processes that stand where torchrun would put them, and do what they are asked."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edgemeta.learners.group import Group
from edgemeta.processes import context, settle


class Failed(Exception):
    """What a process said when it could not do what it was asked."""


@contextmanager
def ranked(world: int = 2) -> Iterator[Callable[..., list[Any]]]:
    """`ask(work, *arguments)` -> what `work(group, *arguments)`, a function of a module, gives in each process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    links, processes = [], []
    for rank in range(world):
        here, there = context().Pipe()
        processes.append(context().Process(target=_serve, args=(there, rank, world, port), daemon=True))
        processes[-1].start()
        there.close()
        links.append(here)

    def ask(work: Callable, *arguments: Any) -> list[Any]:
        for link in links:
            link.send((work, arguments))
        return [_received(link) for link in links]

    try:
        yield ask
    finally:
        for process, link in zip(processes, links, strict=True):
            process.kill()
            process.join()
            link.close()


def _received(link) -> Any:
    try:
        return link.recv()
    except EOFError:
        return Failed("gone")


def _serve(link, rank: int, world: int, port: int) -> None:
    settle()
    said = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ |= {name: str(value) for name, value in said.items()}
    os.environ |= {"TORCHELASTIC_RUN_ID": "tests", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    with Group() as group:
        while True:
            try:
                work, arguments = link.recv()
            except EOFError:
                return
            try:
                link.send(work(group, *arguments))
            except Exception as error:
                link.send(Failed(f"{type(error).__name__}: {error}"))
