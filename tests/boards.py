"""Devices behind ssh: real servers on loopback ports, with keys, settings and homes of their own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/sbin:/usr/local/sbin")
SSH = shutil.which("ssh")
USER = pwd.getpwuid(os.getuid()).pw_name


class Board(NamedTuple):
    folder: Path  # its keys and settings
    home: Path  # the far home folder
    config: Path  # of the client, who calls it "board"
    server: int  # process
    port: int  # on 127.0.0.1


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Board]:
    """A server while the context lasts; skips where there is none to start."""
    if not (SSHD and SSH):
        pytest.skip("no OpenSSH server here; `make system-deps` installs it")
    home, port = folder / "home", free_port()
    home.mkdir(parents=True)
    for name in ("host_key", "id"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "id.pub", folder / "authorized_keys")
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nPermitRootLogin yes\nSetEnv HOME={home}\n"
        "Subsystem sftp internal-sftp\n"
    )
    client = folder / "ssh_config"
    client.write_text(
        f"Host board\n  HostName 127.0.0.1\n  Port {port}\n  User {USER}\n"
        f"  IdentityFile {folder}/id\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n"
        f"  GlobalKnownHostsFile none\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # what a service manager makes before it starts the server
    with subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port, process)
            yield Board(folder, home, client, process.pid, port)
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.skip("the OpenSSH server here does not start for this user")


def break_off(board: Board, *, for_good: bool = False) -> None:
    """Kill the server's ends of all connections, and the server itself where it goes for good."""
    if for_good:
        os.kill(board.server, signal.SIGSTOP)  # so that it starts no other meanwhile
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == board.server:
                os.kill(int(path.parent.name), signal.SIGKILL)
    if for_good:
        os.kill(board.server, signal.SIGKILL)


def use(config: Path | str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ssh` with these settings in place of the user's own."""
    shim = folder / "bin" / "ssh"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {SSH} -F {config} "$@"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Board]:
    with serving(tmp_path_factory.mktemp("ssh")) as board:
        yield board


@pytest.fixture
def board(server, tmp_path, monkeypatch) -> Board:
    use(server.config, tmp_path, monkeypatch)
    return server


@pytest.fixture
def boards(tmp_path, monkeypatch) -> Iterator[tuple[Board, Board]]:
    """Two of them, known by their ports on 127.0.0.1."""
    with serving(tmp_path / "one") as one, serving(tmp_path / "two") as two:
        known = tmp_path / "known_hosts"
        known.write_text("".join((each.folder / "known_hosts").read_text() for each in (one, two)))
        (tmp_path / "config").write_text(
            f"Host *\n  IdentityFile {one.folder}/id\n  IdentityFile {two.folder}/id\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile none\n"
        )
        use(tmp_path / "config", tmp_path, monkeypatch)
        yield one, two
