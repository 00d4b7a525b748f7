"""A PostgreSQL server of a test's own: its files in a folder, on a port that is free, with a password."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

PASSWORD = "not-for-eyes"


class Server:
    """Started and stopped at will; what it keeps stays."""

    def __init__(self, tools: Path, place: Path, user: str | None):
        self._tools, self._data, self._user = tools, place / "data", user
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        secret = place / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._call("initdb", "-D", self._data, "-U", "edge", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync")
        self._settings = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {place}"
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://edge:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        log = self._data.parent / "log"
        self._call("pg_ctl", "-D", self._data, "-w", "-l", log, "-o", self._settings, "start")

    def stop(self) -> None:
        """At once, as a machine that is cut off; connections break."""
        self._call("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def _call(self, tool: str, *args: object) -> None:
        as_user = ["runuser", "-u", self._user, "--"] if self._user else []  # it refuses to run as root
        command = [*as_user, str(self._tools / tool), *map(str, args)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=50)


@contextmanager
def server() -> Iterator[Server]:
    """A running server; the test is skipped where there is no PostgreSQL."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'edgemeta[postgresql]'")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "/none")]
    if not found[-1].exists():
        pytest.skip("PostgreSQL is not installed (make system-deps)")
    user = None
    if os.getuid() == 0:
        with suppress(KeyError):
            user = pwd.getpwnam("postgres").pw_name
        if user is None or not shutil.which("runuser"):
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres here")
    with TemporaryDirectory(prefix="edgemeta-pg-") as place:
        if user:
            shutil.chown(place, user)
        try:
            started = Server(found[-1].parent, Path(place), user)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"PostgreSQL does not start here: {error}")
        try:
            yield started
        finally:
            with suppress(subprocess.CalledProcessError):
                started.stop()
