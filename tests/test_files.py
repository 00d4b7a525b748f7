"""A file is the old one or the new one, whatever happens in between."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgemeta import files
from edgemeta.errors import EdgemetaError

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def disk_of(size: int):
    """No file may grow past `size` bytes: what a full disk or a quota does to a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_writes_make_their_folder_and_are_readable_by_all(tmp_path):
    path = files.write_text(tmp_path / "new" / "deep" / "note.txt", "größe\n")
    assert path.read_text(encoding="utf-8") == "größe\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_json_comes_back(tmp_path):
    value = {"name": "ɣ", "rows": [1, 2.5, None, "x"]}
    assert json.loads(files.write_json(tmp_path / "a.json", value).read_text(encoding="utf-8")) == value


@pytest.mark.parametrize("size", [5_000, 5_000_000])
def test_a_full_disk_leaves_the_old_file_and_one_line(tmp_path, size):
    path = files.write_bytes(tmp_path / "model.onnx", b"old")
    with disk_of(1024), pytest.raises(EdgemetaError) as caught:
        files.write_bytes(path, b"x" * size)
    message = str(caught.value)
    assert str(path) in message and "free space" in message and "\n" not in message
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_a_full_disk_leaves_nothing_where_nothing_was(tmp_path):
    with disk_of(1024), pytest.raises(EdgemetaError):
        files.write_bytes(tmp_path / "model.onnx", b"x" * 5000)
    assert os.listdir(tmp_path) == []


def test_a_value_json_lacks_leaves_the_old_file(tmp_path):
    path = files.write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        files.write_json(path, {"x": object()})
    assert os.listdir(tmp_path) == ["a.json"] and path.read_text() == "1\n"


def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(EdgemetaError, match="choose another folder") as caught:
        files.write_text(tmp_path / "taken" / "a.txt", "x")
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_place_of_the_file_is_one_line(tmp_path):
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(EdgemetaError, match="cannot write"):
        files.write_text(tmp_path / "taken", "x")
    assert os.listdir(tmp_path) == ["taken"]


def test_a_kill_leaves_the_old_or_the_new_file(tmp_path):
    """The writer alternates two contents without end; killed anywhere, one of the two is there, whole."""
    path = tmp_path / "state.bin"
    writer = (
        "import itertools, sys; from edgemeta.files import write_bytes\n"
        "for letter in itertools.cycle(b'ab'):\n"
        "    write_bytes(sys.argv[1], bytes([letter]) * 200_000)\n"
        "    print(end='.', flush=True)\n"
    )
    for writes in (1, 2, 7):
        command = [sys.executable, "-c", writer, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
            process.stdout.read(writes)
            process.kill()
        assert path.read_bytes() in (b"a" * 200_000, b"b" * 200_000)


@pytest.mark.parametrize("name", ["profiles", "export"])
def test_resources_stand_beside_the_package_in_a_checkout(name):
    assert files.resource(name).is_dir()


def test_resources_stand_inside_the_package_in_a_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PACKAGE", tmp_path / "site-packages" / "edgemeta")
    assert files.resource("profiles") == tmp_path / "site-packages" / "edgemeta" / "_profiles"
