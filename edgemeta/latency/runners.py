"""Timing a kit: here, on a device behind OpenSSH, or under Node; each is a child process that tells its progress."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from edgemeta.errors import BadProfile
from edgemeta.files import resource, write_text

from . import remote
from .child import Child, shown
from .kit import Kit

RUNNER = "edgemeta_profile.py"


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
    with Child(command + arguments) as child:
        for _ in shown(child.lines(), f"timing {kit.space.name}", limit, progress):
            pass
        code, complaint = child.ended()
    if code or not out.exists():
        raise BadProfile(complaint or f"the runner {Path(command[-1]).name} ended with exit code {code}; try again")
    return out


def over_ssh(
    kit: Kit,
    out: Path,
    *,
    to: remote.Target,
    seconds: float | None = None,
    progress: bool = True,
    stop: threading.Event | None = None,
) -> Path:
    """Time the kit on another device.

    One connection carries the kit there and the timings back. Timings are kept on the device until they have arrived
    here: after a broken connection the same call goes on from them. After success nothing is left there.
    """
    limit = kit.seconds if seconds is None else seconds
    paths = [kit.folder / "plan.json", *sorted((kit.folder / "models").iterdir())]
    packed = remote.pack({str(path.relative_to(kit.folder)): path for path in paths}, RUNNER)
    work = remote.Work(f"kit-{kit.id[:16]}", f"timing {kit.space.name}", packed, RUNNER, limit, keep=True)
    return write_text(out, remote.done(work, to, progress=progress, stop=stop))
