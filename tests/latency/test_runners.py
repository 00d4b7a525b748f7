from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgemeta.errors import BadProfile
from edgemeta.latency import child, runners, visits
from edgemeta.latency import kit as kits
from edgemeta.latency.remote import Target
from tests.boards import SSH, Board, break_off


@pytest.fixture(scope="module")
def large(tiny, tmp_path_factory) -> kits.Kit:
    archs, covering = kits.covering_and_random(tiny, 1500, seed=0)
    return kits.write(tmp_path_factory.mktemp("large"), tiny, archs, covering=covering, seed=0)


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def timing(folder: Path) -> bool:
    """Whether a runner is timing something in this folder at this moment."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            if runners.RUNNER.encode() in words and str(folder).encode() in words:
                return True
    return False


# Here


def test_the_local_runner_times_every_network(kit, timed):
    timings = visits.read(timed, kit)
    assert {visit.net for visit in timings.visits} == set(range(len(kit.archs)))


def test_a_bar_shows_how_far_it_is_and_how_long_it_takes(kit, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # in a log there is a line a minute
    runners.local(kit, tmp_path / "t.json", progress=True)
    shown = capsys.readouterr().err
    assert "100%" in shown and "s left" in shown and kit.space.name in shown


def test_a_complaint_of_the_runner_becomes_ours(kit, tmp_path):
    broken = shutil.copytree(kit.folder, tmp_path / "kit")
    (broken / "models" / "0000.onnx").write_bytes(b"no model")
    with pytest.raises(BadProfile) as error:
        runners.local(kits.Kit(**vars(kit) | {"folder": broken}), tmp_path / "t.json", progress=False)
    assert "cannot load" in one_line(error)


def test_what_ends_us_ends_the_child_and_keeps_its_timings(large, tmp_path):
    """A signal in the middle, as Ctrl-C would: no process is left, and the file is current."""
    out = tmp_path / "t.json"

    def interrupt():
        while not out.exists():
            time.sleep(0.02)
        assert timing(large.folder)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        runners.local(large, out, progress=False)
    record = json.loads(out.read_text())
    assert record["visits"] and not record["finished"]
    assert not timing(large.folder)


def test_the_node_runner_times_the_same_kit(kit, tmp_path):
    if not shutil.which("node"):
        pytest.skip("no Node here; `make system-deps` installs it")
    try:
        out = runners.node(kit, tmp_path / "t.json", seconds=2.0, progress=False)
    except BadProfile as error:
        assert "npm install" in str(error)
        pytest.skip(f"no onnxruntime-web here; `make web` installs it: {error}")
    timings = visits.read(out, kit)
    assert timings.runtime == "onnxruntime-web" and timings.finished and timings.visits


@pytest.mark.parametrize("line", ["", "progress", "progress 1", "progress x 2", "progress -1 2", "warning: 1 2"])
def test_only_progress_is_progress(line):
    assert child.progress_of(line) is None
    assert list(child.shown(iter([line, "progress 1 2"]), "t", 1.0, False)) == [line]


def test_without_node_or_ssh_the_next_move_is_told(kit, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadProfile, match="install Node"):
        runners.node(kit, tmp_path / "t.json", progress=False)
    with pytest.raises(BadProfile, match="openssh-client"):
        runners.over_ssh(kit, tmp_path / "t.json", to=Target("board"), progress=False)


# Over ssh: a real server on a loopback port with keys of its own


def kept(board: Board) -> list[Path]:
    return list((board.home / ".cache" / "edgemeta").glob("kit-*"))


def over_ssh(kit, out, *, host="board", remote_python=sys.executable, progress=False, **rest):
    return runners.over_ssh(kit, out, to=Target(host, python=remote_python), progress=progress, **rest)


def test_a_kit_goes_there_and_its_timings_come_back(board, kit, tmp_path, capsys):
    out = over_ssh(kit, tmp_path / "t.json", progress=True)
    timings = visits.read(out, kit)
    assert timings.finished and {visit.net for visit in timings.visits} == set(range(len(kit.archs)))
    assert "on board" in capsys.readouterr().err and kept(board) == []


def test_a_broken_connection_is_gone_on_from(board, large, tmp_path):
    """The server's end dies in the middle: what was timed waits on the device for the next call."""
    out = tmp_path / "t.json"
    threading.Thread(target=break_off_once_timed, args=(board,), daemon=True).start()
    with pytest.raises(BadProfile) as error:
        over_ssh(large, out)
    assert "the connection to board broke" in one_line(error) and "run the same command again" in str(error.value)
    assert not out.exists()
    first = settled(board)
    assert first["visits"]
    timings = visits.read(over_ssh(large, out, seconds=first["spent_s"] + 0.2), large)
    assert [list(visit) for visit in timings.visits[: len(first["visits"])]] == first["visits"]
    assert len(timings.visits) > len(first["visits"]) and timings.finished and kept(board) == []


def break_off_once_timed(board: Board) -> None:
    """Once timings are on the far disk."""
    while not any((folder / "timings.json").exists() for folder in kept(board)):
        time.sleep(0.02)
    break_off(board)


def settled(board: Board) -> dict:
    """What the far runner wrote when it noticed that nobody listens."""
    out = kept(board)[0] / "timings.json"
    until = time.monotonic() + 10
    while timing(board.home):
        assert time.monotonic() < until, "the far runner goes on with nobody to listen"
        time.sleep(0.05)
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("  IdentityFile {folder}/other\n", "refused the key"),
        ("  UserKnownHostsFile /dev/null\n", "connect once by hand"),
        ("  HostName nosuch.invalid\n", "no host is known as board"),
        ("  Port 1\n", "no ssh server does"),
    ],
)
def test_a_connection_that_does_not_come_about_is_one_line(board, kit, tmp_path, line, says):
    """The first setting that ssh finds holds, so it goes before the good ones."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    changed = board.config.read_text().replace("Host board\n", "Host board\n" + line.format(folder=tmp_path))
    if "IdentityFile" in line:
        changed = changed.replace(f"  IdentityFile {board.folder}/id\n", "")
    (tmp_path / "config").write_text(changed)
    (tmp_path / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {SSH} -F {tmp_path}/config "$@"\n')
    with pytest.raises(BadProfile) as error:
        over_ssh(kit, tmp_path / "t.json")
    assert says in one_line(error) and "board" in str(error.value)


def test_an_absent_python_there_is_one_line(board, kit, tmp_path):
    with pytest.raises(BadProfile) as error:
        over_ssh(kit, tmp_path / "t.json", remote_python="python9")
    assert "--remote-python" in one_line(error) and "python9" in str(error.value)


def test_a_python_without_the_packages_is_one_line(board, kit, tmp_path):
    """-S leaves site-packages out, as a fresh board has none; the runner is started by that same Python."""
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    script = f"import sys; sys.executable = {str(bare)!r}; exec(sys.argv.pop(1))"
    (tmp_path / "python").write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} -c "{script}" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(BadProfile) as error:
        over_ssh(kit, tmp_path / "t.json", remote_python=str(tmp_path / "python"))
    assert "is missing here" in one_line(error) and "pip install" in str(error.value)


def test_a_name_that_looks_like_an_option_is_only_a_name(board, kit, tmp_path):
    mark = tmp_path / "mark"
    with pytest.raises(BadProfile) as error:
        over_ssh(kit, tmp_path / "t.json", host=f"-oProxyCommand=touch {mark}")
    assert one_line(error) and not mark.exists()
