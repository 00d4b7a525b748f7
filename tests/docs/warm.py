"""One process that has imported what commands import, and forks for each: those of a page need not wait for torch.

    python -m tests.docs.warm SOCKET

A command sends its arguments, folder and environment as JSON along with its standard streams, and reads the exit code.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

STREAMS = 3


def ask(address: str, arguments: list[str]) -> int:
    """The exit code of `edgemeta ARGUMENTS`, run by the process that listens there."""
    asked = {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        socket.send_fds(line, [b"!"], list(range(STREAMS)))
        line.sendall(json.dumps(asked).encode())
        line.shutdown(socket.SHUT_WR)
        return int(line.makefile().read() or 1)


def serve(address: str) -> None:
    """Until stdin closes, which is when the one that started this has ended."""
    import edgemeta.pipeline  # noqa: F401, the imports are what takes long
    from tests.docs import short

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        line, _ = listener.accept()
        if not os.fork():
            listener.close()
            os._exit(_answer(line, short.main))
        line.close()
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _answer(line: socket.socket, main: Callable[[list[str]], int]) -> int:
    _, streams, *_ = socket.recv_fds(line, 1, STREAMS)
    asked = json.loads(line.makefile().read())
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    try:
        code = main(asked["arguments"])
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    line.sendall(str(code).encode())
    return 0


if __name__ == "__main__":
    serve(sys.argv[1])
