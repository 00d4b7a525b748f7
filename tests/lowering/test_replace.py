from __future__ import annotations

import os
import threading

import pytest

from edgemeta.errors import BadBundle
from edgemeta.lowering import replace


@pytest.fixture(params=["one exchange", "two renames"])
def target(request, tmp_path, monkeypatch):
    if request.param == "two renames":
        monkeypatch.setattr(replace, "_exchange", lambda one, other: False)
    return tmp_path / "target"


def test_new_contents_take_the_place_of_the_old(target):
    replace.folder(target, {"a": b"1", "b": b"2"})
    replace.folder(target, {"a": b"3"})
    assert [(path.name, path.read_bytes()) for path in target.iterdir()] == [("a", b"3")]
    assert list(target.parent.iterdir()) == [target]


def test_reader_always_finds_one(tmp_path):
    """While a folder is replaced again and again, its file is never missing."""
    target, missing, done = tmp_path / "target", [], threading.Event()
    replace.folder(target, {"a": b"0"})
    if not replace._exchange(_made(tmp_path / "x"), _made(tmp_path / "y")):
        pytest.skip("this file system cannot exchange folders")

    def look():
        while not done.is_set():
            if not (target / "a").exists():
                missing.append(1)

    reader = threading.Thread(target=look)
    reader.start()
    for i in range(30):
        replace.folder(target, {"a": str(i).encode()})
    done.set()
    reader.join()
    assert not missing


def _made(path):
    path.mkdir()
    return path


def test_kill_between_two_renames_is_mended(tmp_path):
    aside = tmp_path / ".target.old"
    aside.mkdir()
    (aside / "a").write_bytes(b"old")
    replace.recover(tmp_path / "target")
    assert (tmp_path / "target" / "a").read_bytes() == b"old" and not aside.exists()


def test_error_leaves_the_old_folder(target, monkeypatch):
    replace.folder(target, {"a": b"old"})

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(replace, "_write", full)
    with pytest.raises(BadBundle, match="No space left on device; free space"):
        replace.folder(target, {"a": b"new"})
    assert (target / "a").read_bytes() == b"old" and list(target.parent.iterdir()) == [target]


def test_what_killed_writers_left_is_swept(target):
    stale, fresh = (_made(target.parent / f".target.{name}.tmp") for name in ("stale", "fresh"))
    os.utime(stale, (0, 0))
    replace.folder(target, {"a": b"1"})
    assert not stale.exists() and fresh.exists()
