"""Timing a kit: here, on a device behind OpenSSH, or under Node; each is a child process that tells its progress."""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from edgemeta.errors import BadProfile
from edgemeta.files import resource, write_text

from .kit import Kit

RUNNER = "edgemeta_profile.py"
GRACE_S = 10.0  # for a child that was asked to stop: it writes its timings first
CONNECT_S, ALIVE_S, ALIVE_COUNT = 15, 5, 6  # a connection that is silent for 30 s is broken
MAX_LINE = 64 * 2**20
_OPTIONS = ("BatchMode=yes", f"ConnectTimeout={CONNECT_S}", f"ServerAliveInterval={ALIVE_S}",
            f"ServerAliveCountMax={ALIVE_COUNT}")  # fmt: skip
_ON_ITS_WAY = ("NAME", "SIZE", "SECONDS")


def local(kit: Kit, out: Path, *, seconds: float | None = None, progress: bool = True) -> Path:
    """Time the kit with ONNX Runtime on this machine; `out` is current whatever ends it, and is gone on from."""
    runner = resource("export") / "python" / RUNNER
    return _here([sys.executable, str(runner)], kit, out, seconds, progress)


def node(kit: Kit, out: Path, *, seconds: float | None = None, progress: bool = True) -> Path:
    """As `local`, with onnxruntime-web's wasm under Node."""
    if not (program := shutil.which("node")):
        raise BadProfile("no `node` on this machine; install Node 20 or later, or leave --runtime out")
    runner = resource("export") / "web" / "edgemeta_profile.mjs"
    return _here([program, str(runner)], kit, out, seconds, progress)


RUNTIMES: Mapping[str, Callable[..., Path]] = {"onnxruntime": local, "onnxruntime-web": node}


def _here(command: list[str], kit: Kit, out: Path, seconds: float | None, progress: bool) -> Path:
    limit = kit.seconds if seconds is None else seconds
    out.parent.mkdir(parents=True, exist_ok=True)
    arguments = [str(kit.folder), "--out", str(out.resolve()), "--seconds", str(limit)]
    with _Child(command + arguments) as child:
        for _ in _shown(child.lines(), f"timing {kit.space.name}", limit, progress):
            pass
        code, complaint = child.ended()
    if code or not out.exists():
        raise BadProfile(complaint or f"the runner {Path(command[-1]).name} ended with exit code {code}; try again")
    return out


def over_ssh(
    kit: Kit,
    out: Path,
    *,
    host: str,
    remote_python: str = "python3",
    seconds: float | None = None,
    progress: bool = True,
) -> Path:
    """Time the kit on `host` (as `ssh` knows it: user, port and key come from the user's own ssh config).

    One connection carries the kit there and the timings back. Timings are kept on the device until they have arrived
    here: after a broken connection the same call goes on from them. After success nothing is left there.
    """
    if not (ssh := shutil.which("ssh")):
        raise BadProfile("no `ssh` on this machine; install openssh-client, or carry the kit by hand with --kit DIR")
    limit, packed = kit.seconds if seconds is None else seconds, _packed(kit)
    values = dict(zip(_ON_ITS_WAY, (f"kit-{kit.id[:16]}", len(packed), limit), strict=True))
    script = f"{', '.join(values)} = {', '.join(map(repr, values.values()))}\n{_REMOTE}"
    options = [part for option in _OPTIONS for part in ("-o", option)]
    remote = f"{remote_python} -u -c {shlex.quote(script)}"
    brought = None
    with _Child([ssh, *options, "--", host, remote], feed=packed) as child:
        for line in _shown(child.lines(), f"timing {kit.space.name} on {host}", limit, progress):
            if line.startswith("timings "):
                brought = write_text(out, line.removeprefix("timings "))
                child.say(b"thanks\n")
        code, complaint = child.ended()
    if brought is None:
        raise BadProfile(_ssh_complaint(host, remote_python, code, complaint))
    return brought


def _packed(kit: Kit) -> bytes:
    """The kit and the runner as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in [kit.folder / "plan.json", *sorted((kit.folder / "models").iterdir())]:
            archive.write(path, path.relative_to(kit.folder))
        archive.write(resource("export") / "python" / RUNNER, RUNNER)
    return buffer.getvalue()


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
runner = os.path.join(home, "edgemeta_profile.py")
command = [sys.executable, runner, home, "--out", out, "--seconds", str(SECONDS)]
code = subprocess.call(command, stdin=subprocess.DEVNULL)
if code:
    sys.exit(code)
sys.stdout.write("timings " + " ".join(open(out).read().split("\\n")) + "\\n")
sys.stdout.flush()
if sys.stdin.buffer.readline() == b"thanks\\n":
    shutil.rmtree(home, ignore_errors=True)
"""

_SSH_SAYS = {
    "Permission denied": "{host} refused the key: `ssh-copy-id {host}`, or name the key in ~/.ssh/config",
    "Could not resolve hostname": "no host is known as {host}: give user@address, or a name from ~/.ssh/config",
    "Host key verification failed": "the key of {host} is not known yet, or has changed: "
    "connect once by hand, `ssh {host}`, and look at what it says",
    "Connection refused": "{host} answers, but no ssh server does: start it there, or give the port in ~/.ssh/config",
    "timed out": "{host} does not answer: is it switched on, and in this network?",
    "No route to host": "{host} does not answer: is it switched on, and in this network?",
}


def _ssh_complaint(host: str, python: str, code: int, complaint: str) -> str:
    """One line for the ways in which a far device fails."""
    if code == 127 or "not found" in complaint and python in complaint:
        return f"no {python!r} on {host}: name its Python with --remote-python ({complaint})"
    if code != 255:
        return f"{host}: {complaint or f'the runner ended with exit code {code}; try again'}"
    for words, advice in _SSH_SAYS.items():
        if words in complaint:
            return f"{advice.format(host=host)} ({complaint})"
    broken = "what was timed is kept there for an hour: run the same command again"
    return f"the connection to {host} broke ({complaint or 'no reason given'}); {broken}"


def _shown(lines: Iterator[str], title: str, limit: float, progress: bool) -> Iterator[str]:
    """Show `progress` lines as a bar, and pass on the rest."""
    begin, first = time.monotonic(), None
    with tqdm(desc=title, unit="timing", total=None, disable=not progress) as bar:
        for line in lines:
            if not (numbers := _progress(line)):
                yield line
                continue
            done, bar.total = numbers
            first = done if first is None else first
            passed = time.monotonic() - begin
            rest = passed * (bar.total - done) / max(1, done - first)
            bar.set_postfix_str(f"about {max(0.0, min(rest, limit - passed)):.0f} s left", refresh=False)
            bar.update(done - bar.n)


def _progress(line: str) -> tuple[int, int] | None:
    word, *numbers = line.split()[:3] or [""]
    if word != "progress" or len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


class _Child:
    """A child process in a group of its own: Ctrl-C reaches it once, through us, and it ends before we do."""

    def __init__(self, command: list[str], *, feed: bytes = b""):
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed where the child ends
        pipe = subprocess.PIPE if feed else subprocess.DEVNULL
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            command, stdin=pipe, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True
        )
        self._feeder = threading.Thread(target=self.say, args=(feed,), daemon=True)
        if feed:
            self._feeder.start()

    def say(self, message: bytes) -> None:
        """Write to the child; one that has ended is noticed by its exit code."""
        stdin: IO[bytes] | None = self._process.stdin
        with contextlib.suppress(OSError):
            if stdin:
                stdin.write(message)
                stdin.flush()

    def lines(self) -> Iterator[str]:
        assert self._process.stdout
        while line := self._process.stdout.readline(MAX_LINE):
            yield line.decode(errors="replace").rstrip("\n")

    def ended(self) -> tuple[int, str]:
        """Exit code, and the last line of what it complained of."""
        code = self._process.wait()
        self._errors.seek(0)
        told = self._errors.read(2**20).decode(errors="replace").strip().splitlines()
        return code, told[-1].strip() if told else ""

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was left to say to a child that is gone
                if pipe:
                    pipe.close()
        self._errors.close()
