"""A reader's machine: a folder, a home, programs on PATH, and the far ends that pages speak to, all of them real."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgemeta.config import default_cache
from tests import boards, postgres

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("edgemeta", "make", "pip", "npm", "ssh", "torchrun")
PYTHONS = ("python", "python3")
NEEDED = {
    "ssh": re.compile(r"--ssh\b|--devices\b|^ *ssh ", re.MULTILINE),
    "postgresql": re.compile(r"postgresql://"),
    "npm": re.compile(r"\bnpm (install|ci)\b"),
    "compiler": re.compile(r"--c |\bcc |\bmake -C\b"),
}


class Reader:
    """What a page's blocks share. Servers start when a block first needs them, and a page that has none is skipped."""

    def __init__(self, place: Path, stack: ExitStack, *, whole: bool, shared: Path, warm: str):
        self.folder, self.home, self._bin = place / "folder", place / "home", place / "bin"
        self.expected: str | None = None  # the line that was provoked last
        self._stack, self._have, self.told = stack, set[str](), list[str]()
        for path in (self.folder, self.home / ".cache", self._bin):
            path.mkdir(parents=True)
        (self.home / ".cache" / "edgemeta").symlink_to(default_cache())  # glyphs, onnxruntime-web and -node
        default_cache().mkdir(parents=True, exist_ok=True)
        for name in PROGRAMS:
            self._program(name, f'exec {sys.executable} -m tests.docs.programs {name} "$@"')
        for name in PYTHONS:
            self._program(name, f'exec {sys.executable} "$@"')
        ours = [str(self._bin), str(Path(sys.executable).parent)]
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PG"))}
        self.environment |= {
            "HOME": str(self.home),
            "PATH": os.pathsep.join([*ours, os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "EDGEMETA_DOCS": "whole" if whole else "short",
            "EDGEMETA_DOCS_SHARED": str(shared),
            "EDGEMETA_DOCS_WARM": warm,
            **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")},
        }

    def _program(self, name: str, line: str) -> None:
        path = self._bin / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def provoke(self, command: str, code: int = 2) -> None:
        """A mistake: the next block of `text` is the line that the command ends with, "…" standing for anything."""
        self.need(command)
        environment = self.environment | {"EDGEMETA_DOCS": "wrong"}
        done = subprocess.run(["bash", "-c", command], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == code, f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        self.expected = done.stderr.replace("\r", "\n").strip().splitlines()[-1]

    def hears(self, text: str) -> None:
        """Whether a page quotes what was last provoked as it is; a block of `text` after nothing was is any output."""
        if self.expected is None:
            return
        told, self.expected, quoted = self.expected, None, " ".join(text.split())
        words = ".*".join(re.escape(part.strip()) for part in quoted.split("…"))
        assert re.fullmatch(words, told), f"the page says\n{quoted}\nand the program\n{told}"

    def need(self, text: str) -> None:
        """What these lines of shell speak to is there, or the page ends here with a reason."""
        for name, words in NEEDED.items():
            if name not in self._have and words.search(text):
                getattr(self, f"_{name}")()
                self._have.add(name)

    def _ssh(self) -> None:
        """Any host is one server here; the Python over there is this one."""
        board = self._stack.enter_context(boards.serving(self.home / "board"))
        config = (board.folder / "ssh_config").read_text().replace("Host board", "Host *", 1)
        config = config.replace(f"{board.folder}/known_hosts", f"{self.home}/known_hosts")
        (self.home / "known_hosts").write_text("")
        (self.home / "ssh_config").write_text(config + "  StrictHostKeyChecking accept-new\n  HostKeyAlias here\n")

    def _postgresql(self) -> None:
        """Whatever host an address names, libpq takes this one, and a database of that name is there."""
        server = self._stack.enter_context(postgres.server())
        import psycopg

        with psycopg.connect(server.url, autocommit=True) as session:
            session.execute("CREATE DATABASE edgemeta")
        found = {"PGHOSTADDR": "127.0.0.1", "PGPORT": str(server.port), "PGPASSWORD": postgres.PASSWORD}
        self.environment |= found

    def _npm(self) -> None:
        if not (shutil.which("node") and (default_cache() / "node" / "node_modules").is_dir()):
            pytest.skip("no Node with onnxruntime-node and sharp here; `make node` installs them")

    def _compiler(self) -> None:
        missing = [name for name in ("cc", "make", "arm-none-eabi-gcc", "qemu-system-arm") if not shutil.which(name)]
        if missing:
            pytest.skip(f"no {', '.join(missing)} here; `make system-deps` installs them")
        pytest.importorskip("emx_onnx_cgen", reason="extra `c` is not installed")
