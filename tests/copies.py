"""Commands in processes of their own that begin at once: copies of one that has imported torch, as workers are."""

from __future__ import annotations

import os
import resource
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from edgemeta import processes


class Done(NamedTuple):
    """What a command left; its names are those of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def started(work, *arguments) -> BaseProcess:
    """`work`, a function of a module, in a process that may be killed."""
    process = processes.context().Process(target=work, args=arguments)
    process.start()
    return process


def edgemeta(*arguments: str, cwd: Path, most_bytes: int | None = None) -> Done:
    """The command line; no file of its process grows beyond `most_bytes`, as on a full disk."""
    out, err = (cwd / f"{os.getpid()}.{name}" for name in ("stdout", "stderr"))
    process = started(_command, arguments, cwd, out, err, most_bytes)
    process.join()
    assert process.exitcode is not None
    done = Done(process.exitcode, out.read_text(), err.read_text())
    out.unlink()
    err.unlink()
    return done


def _command(arguments, cwd: Path, out: Path, err: Path, most_bytes: int | None) -> None:
    os.chdir(cwd)
    for place, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), place)
    if most_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    from edgemeta.cli import main

    sys.exit(main(arguments))
