"""What stands on a reader's PATH for programs that would take long, reach out, or need a machine of their own.

    python -m tests.docs.programs NAME ARGUMENTS...

`edgemeta` is this checkout's, made short unless EDGEMETA_DOCS is "whole". `make` and `pip` check that what is asked
for exists, since targets and extras are run for real elsewhere; `make -C` is make's own. `npm install` takes what
`make node` has installed; `ssh` reaches the server of the tests, whatever the host; `torchrun` starts all nodes here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.docs import warm

ROOT = Path(__file__).resolve().parents[2]
HOME, SHARED = Path(os.environ.get("HOME", "/")), Path(os.environ.get("EDGEMETA_DOCS_SHARED", "/"))
SHORT = os.environ.get("EDGEMETA_DOCS") != "whole"
OTHER = {"torch", "optuna-dashboard", "psycopg2-binary", "pre-commit"}  # packages that pages name beside ours
OPTION = re.compile(r"-[BbcDEeFIiJLlmOopQRSWw]")  # of ssh, those with a value


def edgemeta(arguments: list[str]) -> int:
    if (
        arguments[:1] == ["serve"]
        and os.environ["EDGEMETA_DOCS"] != "wrong"
        and "--out" not in arguments
        and not {"-h", "--help"} & set(arguments)
    ):
        return serve(arguments)
    if SHORT:
        return warm.ask(os.environ["EDGEMETA_DOCS_WARM"], arguments)
    return subprocess.call([sys.executable, "-m", "edgemeta.cli", *arguments])


def serve(arguments: list[str]) -> int:
    """Until the page answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "edgemeta.cli", *arguments, "--port", str(port)]
    with subprocess.Popen(command) as server:
        until = time.monotonic() + 120
        while server.poll() is None and time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    answer = page.status
                server.send_signal(signal.SIGINT)
                server.wait()
                return 0 if answer == 200 else 1
            except OSError:
                time.sleep(0.1)
        server.kill()
        return server.wait() or 1


def make(arguments: list[str]) -> int:
    if "-C" in arguments:
        return subprocess.call([_beyond("make"), *arguments])
    targets = re.findall(r"^([a-z.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    asked = [argument for argument in arguments if "=" not in argument and not argument.startswith("-")]
    return _known("target of the Makefile", asked, targets)


def pip(arguments: list[str]) -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = re.sub(r"(?<!\S)(?:-[cr] \S+|-\S+)", "", " ".join(arguments[1:])).split()
    ours = [found for found in map(re.compile(r"(edgemeta|\.)\[([\w,-]+)\]").fullmatch, asked) if found]
    plain = [name for name in asked if not any(name == found[0] for found in ours)]
    extras = [extra for found in ours for extra in found[2].split(",")]
    if wrong := [name for name in plain if name not in {"edgemeta", "."} | OTHER and not name.endswith(".whl")]:
        print(f"pip: {wrong[0]} is no package that pages name", file=sys.stderr)
        return 1
    return _known("extra of pyproject.toml", extras, list(project["optional-dependencies"]))


def npm(arguments: list[str]) -> int:
    """What `make node` has installed, if it is what this folder asks for."""
    have = HOME / ".cache" / "edgemeta" / "node"
    wanted, known = (
        json.loads(path.read_text())["dependencies"] for path in (Path("package.json"), have / "package.json")
    )
    if arguments[:1] != ["install"] or wanted != known:
        print(f"npm {' '.join(arguments)}: wants {wanted}, `make node` has {known}", file=sys.stderr)
        return 1
    Path("node_modules").unlink(missing_ok=True)
    Path("node_modules").symlink_to(have / "node_modules")
    return 0


def ssh(arguments: list[str]) -> int:
    """To the server of the tests: its port, its user, and for any Python over there this one."""
    kept, rest = [], list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "--":
        option = rest.pop(0)
        value = [rest.pop(0)] if OPTION.fullmatch(option) else []
        kept += [] if option in ("-p", "-l", "-i") else [option, *value]
    host, *command = rest[1:] if rest[:1] == ["--"] else rest
    there = [re.sub(r"^\S*python[\d.]*(?= )", sys.executable, part) for part in command]
    return subprocess.call([_beyond("ssh"), "-F", str(HOME / "ssh_config"), *kept, "--", host.split("@")[-1], *there])


def torchrun(arguments: list[str]) -> int:
    """As many nodes as are asked for, all of them here; one process in each where the commands are made short."""
    told = ["tests.docs.short" if part == "edgemeta.cli" and SHORT else part for part in arguments]
    nodes = int(told[told.index("--nnodes") + 1]) if "--nnodes" in told else 1
    if nodes > 1 and SHORT:
        told[told.index("--nproc-per-node") + 1] = "1"
    if "--rdzv-endpoint" in told:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            told[told.index("--rdzv-endpoint") + 1] = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "torch.distributed.run", *told]
    started = [subprocess.Popen(command) for _ in range(nodes)]
    return max(process.wait() for process in started)


def _known(kind: str, asked: list[str], known: list[str]) -> int:
    for name in asked:
        if name not in known:
            print(f"{name} is no {kind}: {', '.join(known)}", file=sys.stderr)
            return 1
    return 0


def _beyond(name: str) -> str:
    """The program of this name behind the stand-in on PATH."""
    paths = [path for path in os.environ["PATH"].split(os.pathsep) if path != str(HOME.parent / "bin")]
    found = shutil.which(name, path=os.pathsep.join(paths))
    assert found, f"no {name} on this machine"
    return found


PROGRAMS: dict[str, Callable[[list[str]], int]] = {
    "edgemeta": edgemeta,
    "make": make,
    "pip": pip,
    "npm": npm,
    "ssh": ssh,
    "torchrun": torchrun,
}

if __name__ == "__main__":
    sys.exit(PROGRAMS[sys.argv[1]](sys.argv[2:]))
