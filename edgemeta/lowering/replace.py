"""Putting a finished folder in the place of an old one, so that a reader finds the old one or the new one."""

from __future__ import annotations

import ctypes
import glob
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from edgemeta.errors import BadBundle

_AT_FDCWD, _EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_STALE_SECONDS = 600.0  # a bundle is written in less than one


def folder(target: Path, contents: Mapping[str, bytes]) -> Path:
    """Write `contents`, by path, into a new folder beside `target`, flush it to disk and put it in `target`'s place."""
    staged: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        recover(target)
        _sweep(target)
        staged = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
        for name, data in contents.items():
            (staged / name).parent.mkdir(exist_ok=True)
            _write(staged / name, data)
        os.chmod(staged, 0o755)
        _sync(staged)
        _place(staged, target)
        _sync(target.parent)
    except OSError as error:
        raise BadBundle(f"cannot write {target}: {error.strerror}; free space or choose another folder") from error
    finally:
        if staged is not None:
            shutil.rmtree(staged, ignore_errors=True)
    return target


def recover(target: Path) -> None:
    """Finish a replacement that was killed between its two renames."""
    aside = _aside(target)
    if aside.is_dir() and not target.exists():
        os.rename(aside, target)


def _sweep(target: Path) -> None:
    """Remove what killed writers left behind, long enough ago that none of them can still be at work."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        if left.is_dir() and time.time() - left.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _place(staged: Path, target: Path) -> None:
    """One exchange where the system has it; elsewhere two renames, whose gap `recover` closes."""
    if not target.exists():
        os.rename(staged, target)
    elif not _exchange(staged, target):
        shutil.rmtree(_aside(target), ignore_errors=True)
        os.rename(target, _aside(target))
        os.rename(staged, target)
        shutil.rmtree(_aside(target), ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one system call; False where kernel, C library or file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    paths = _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other)
    return rename is not None and rename(*paths, _EXCHANGE) == 0


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Folders cannot be opened for this on every system; there the file contents alone are flushed."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
