"""No process of an experiment stays behind, however the one that began it ends."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

MARK = "EDGEMETA_NNI"  # in the environment of every process of an experiment, however far down
MANAGER = Path(__file__).with_name("manager.cjs")
BOSS = "EDGEMETA_NNI_MANAGER"  # process id of the manager, in the environment of what it starts
PEERS = "EDGEMETA_NNI_PEERS"  # machines that may connect to the manager, beside this one
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
PATIENCE_S = 2.0  # for a process to end when asked, before it is killed


@contextmanager
def family(peers: tuple[str, ...] = ()) -> Iterator[Leaving]:
    """Mark what is started inside, and end it on the way out; signals lead there by way of `Leaving.wait`.

    Inside, NNI's manager listens on the loopback interface alone, or, with `peers`, drops connections from machines
    that are not among them.
    """
    mark = uuid.uuid4().hex
    given = f"{os.environ.get('NODE_OPTIONS', '')} --require {_quoted(MANAGER)}".strip()
    own = {MARK: mark, "NODE_OPTIONS": given, PEERS: ",".join(peers)}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    atexit.register(end, mark)
    try:
        with _signals() as leaving:
            try:
                yield leaving
            finally:
                end(mark)
    finally:
        atexit.unregister(end)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def marked(mark: str) -> list[psutil.Process]:
    """Every process of this user that bears the mark, but for this one."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def end(mark: str) -> None:
    """Ask all that bear the mark to end, then kill what is left, and what that has started meanwhile."""
    asked = marked(mark)
    for process in asked:
        with suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(asked, timeout=PATIENCE_S)
    until = time.monotonic() + PATIENCE_S
    while (left := marked(mark)) and time.monotonic() < until:
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1.0)


def end_with_manager() -> None:
    """End this process soon after NNI's manager has gone; on another machine, after the one that started it."""
    threading.Thread(target=_watch, args=(os.environ.get(BOSS),), daemon=True).start()


def _watch(boss: str | None) -> None:
    with suppress(psutil.Error):
        manager = psutil.Process(int(boss) if boss else os.getppid())
        while manager.is_running() and manager.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
    os._exit(1)


class Leaving:
    """Whether this process was told to end. An exception from a signal handler can be lost, in a finaliser say."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self._number = 0

    def wait(self, seconds: float) -> None:
        """Sleep, or raise KeyboardInterrupt or SystemExit, as soon as a signal asks for that."""
        if self._told.wait(seconds):
            raise KeyboardInterrupt if self._number == signal.SIGINT else SystemExit(128 + self._number)

    def told(self, number: int, _: Any) -> None:
        self._number = number
        self._told.set()


@contextmanager
def _signals() -> Iterator[Leaving]:
    """Note the signals that end a process, also while one is being obeyed; only a main thread may set that."""
    leaving = Leaving()
    if threading.current_thread() is not threading.main_thread():
        yield leaving
        return
    before = {number: signal.signal(number, leaving.told) for number in ENDING}
    try:
        yield leaving
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _quoted(path: Path) -> str:
    """As NODE_OPTIONS wants a path that may hold spaces."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
