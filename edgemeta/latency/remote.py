"""Work for a device behind OpenSSH: packed, carried there, done by its own Python, and the answer brought back."""

from __future__ import annotations

import io
import shlex
import shutil
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemeta.errors import BadProfile
from edgemeta.files import resource

from .child import Child, shown

CONNECT_S, ALIVE_S, ALIVE_COUNT = 15, 5, 6  # a connection that is silent for 30 s is broken
_OPTIONS = ("BatchMode=yes", f"ConnectTimeout={CONNECT_S}", f"ServerAliveInterval={ALIVE_S}",
            f"ServerAliveCountMax={ALIVE_COUNT}")  # fmt: skip
BUSY = "another run is timing"  # as the runner says it, of the end of a run that a broken connection left behind


class Unreachable(BadProfile):
    """A device that did not answer, or went away: it may be back in a moment."""


@dataclass(frozen=True)
class Target:
    """A device as `ssh` reaches it; what is left out comes from the user's own ssh config, keys always do."""

    host: str
    port: int | None = None
    user: str | None = None
    python: str = "python3"  # its own; with numpy and onnxruntime
    timeout_s: float | None = None  # a device that tells nothing for so long has gone away; None: ssh decides
    name: str = ""  # what it is called in an inventory

    def __str__(self) -> str:
        return self.name or self.host

    @property
    def arguments(self) -> list[str]:
        """Of `ssh`, before the command; after `--`, a host that looks like an option is only a name."""
        port = [] if self.port is None else ["-p", str(self.port)]
        user = [] if self.user is None else ["-l", self.user]
        return [*port, *user, "--", self.host]

    @property
    def login(self) -> str:
        """The same as a person types it."""
        port = "" if self.port is None else f"-p {self.port} "
        return port + (self.host if self.user is None else f"{self.user}@{self.host}")


@dataclass(frozen=True)
class Work:
    """What is done there: a runner of export/python, started as `RUNNER FOLDER --out FILE --seconds N`."""

    name: str  # of its folder there
    title: str  # of the progress bar
    packed: bytes  # a zip of the folder, runner included
    runner: str
    seconds: float
    keep: bool  # after a broken connection, for the same work to go on from


def pack(contents: Mapping[str, bytes | Path], *runners: str) -> bytes:
    """A zip of these contents, files by their paths, and of runners."""
    sources = {**contents, **{name: resource("export") / "python" / name for name in runners}}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, source in sources.items():
            archive.writestr(name, source if isinstance(source, bytes) else source.read_bytes())
    return buffer.getvalue()


def done(work: Work, at: Target, *, progress: bool = True, stop: threading.Event | None = None) -> str:
    """The JSON that the runner wrote on the device, in one line.

    One connection carries the work there and the answer back. After success nothing is left there. `Unreachable` where
    the connection did not come about or broke, `BadProfile` where the device cannot do such work; both in one line.
    Setting `stop`, from another thread, ends it.
    """
    if not (ssh := shutil.which("ssh")):
        raise BadProfile("no `ssh` on this machine; install openssh-client, or carry the kit by hand with --kit DIR")
    values: dict[str, Any] = {"NAME": work.name, "SIZE": len(work.packed), "SECONDS": work.seconds}
    values |= {"RUNNER": work.runner, "KEEP": work.keep}
    script = f"{', '.join(values)} = {', '.join(map(repr, values.values()))}\n{_REMOTE}"
    options = [part for option in _OPTIONS for part in ("-o", option)]
    command = [ssh, *options, *at.arguments, f"{at.python} -u -c {shlex.quote(script)}"]
    brought = None
    with Child(command, feed=work.packed, stop=stop, silent_s=at.timeout_s) as child:
        for line in shown(child.lines(), f"{work.title} on {at}", work.seconds, progress):
            if line.startswith("timings "):
                brought = line.removeprefix("timings ")
                child.say(b"thanks\n")
        code, complaint = child.ended()
    if brought is None:
        if child.silenced:
            raise Unreachable(f"{at} has told nothing for {at.timeout_s:g} s: is it switched on, and in this network?")
        raise _complaint(at, code, complaint, work.keep)
    return brought


# What the far side runs: it takes the zip from stdin, times, hands the timings over, and tidies up once thanked.
_REMOTE = """
import io, os, shutil, subprocess, sys, zipfile
if sys.version_info < (3, 9):
    sys.exit("Python %d.%d is too old there, the runner needs 3.9" % sys.version_info[:2])
home = os.path.join(os.path.expanduser("~"), ".cache", "edgemeta", NAME)
packed = sys.stdin.buffer.read(SIZE)
if len(packed) < SIZE:
    sys.exit("the kit did not arrive whole")
try:
    os.makedirs(home, exist_ok=True)
    zipfile.ZipFile(io.BytesIO(packed)).extractall(home)
except OSError as error:
    sys.exit("cannot unpack the kit into %s: %s" % (home, error.strerror))
out = os.path.join(home, "timings.json")
command = [sys.executable, os.path.join(home, RUNNER), home, "--out", out, "--seconds", str(SECONDS)]
try:
    code = subprocess.call(command, stdin=subprocess.DEVNULL)
    if code:
        sys.exit(code)
    sys.stdout.write("timings " + " ".join(open(out).read().split("\\n")) + "\\n")
    sys.stdout.flush()
    if sys.stdin.buffer.readline() == b"thanks\\n":
        KEEP = False
finally:
    if not KEEP:
        shutil.rmtree(home, ignore_errors=True)
"""

_FOR_GOOD = {
    "Permission denied": "{at} refused the key: `ssh-copy-id {login}`, or name the key in ~/.ssh/config",
    "Host key verification failed": "the key of {at} is not known yet, or has changed: "
    "connect once by hand, `ssh {login}`, and look at what it says",
}
_FOR_NOW = {
    "Could not resolve hostname": "no host is known as {host}: give user@address, or a name from ~/.ssh/config",
    "Connection refused": "{at} answers, but no ssh server does: start it there, or give the port in ~/.ssh/config",
    "timed out": "{at} does not answer: is it switched on, and in this network?",
    "No route to host": "{at} does not answer: is it switched on, and in this network?",
}


def _complaint(at: Target, code: int, complaint: str, kept: bool) -> BadProfile:
    """One line for the ways in which a far device fails."""
    if code == 127 or "not found" in complaint and at.python in complaint:
        where = "`python` in its table" if at.name else "--remote-python"
        return BadProfile(f"no {at.python!r} on {at}: name its Python with {where} ({complaint})")
    if code > 0 and code != 255:
        told = f"{at}: {complaint or f'the runner ended with exit code {code}; try again'}"
        return Unreachable(told) if BUSY in complaint or code > 128 else BadProfile(told)
    for kind, says in ((BadProfile, _FOR_GOOD), (Unreachable, _FOR_NOW)):
        for words, advice in says.items():
            if words in complaint:
                return kind(f"{advice.format(at=at, host=at.host, login=at.login)} ({complaint})")
    broken = "what was timed is kept there for an hour: run the same command again" if kept else "try again"
    return Unreachable(f"the connection to {at} broke ({complaint or 'no reason given'}); {broken}")
