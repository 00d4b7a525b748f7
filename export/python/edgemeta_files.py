"""Files of the device runtime: bundles that are what their manifest says, states that are whole or not there at all."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import json
import math
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Union

import numpy as np

try:
    import fcntl
except ImportError:  # `Device.save` still refuses to overwrite a state that changed
    LOCKS = False
else:
    LOCKS = True

FORMAT, VERSION, STATE_VERSION = "edgemeta-bundle", 2, 2
GRAPHS = ("body", "adapt", "classify")  # the first where the learner works on features
MAX_MANIFEST_BYTES, MAX_FILE_BYTES = 2**20, 2**28
CLOCK_REALTIME_COARSE = 5  # of linux/time.h; Python has no name for it
LOCK_S = 60.0  # longest wait for another process that writes the same state
DAMAGE = (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, OSError, EOFError, RuntimeError,
          zipfile.error)  # fmt: skip
AGAIN = "copy or make the bundle again"  # the next move where one is damaged
Name = Union[str, "os.PathLike[str]"]


class DeviceError(Exception):
    """Something the user can mend, in one line."""


def line(error: BaseException) -> str:
    lacks = "it lacks " if isinstance(error, KeyError) else ""
    return lacks + " ".join(str(error).split())[:160] or type(error).__name__


def bounded(path: Path, limit: int) -> bytes:
    """The bytes of a plain file that is not larger than `limit`."""
    try:
        if path.is_symlink() or not path.is_file():
            raise DeviceError(f"{path} is missing or not a plain file; check the path")
        if path.stat().st_size > limit:
            raise DeviceError(f"{path} is larger than {limit} bytes; copy or export it again")
        return path.read_bytes()
    except OSError as error:
        raise DeviceError(f"cannot read {path}: {error.strerror}; check its permissions") from None


# Bundles


def load_bundle(folder: Name) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the graphs of a bundle; refused where a file is not what the manifest says."""
    folder = Path(folder)
    try:
        manifest = json.loads(bounded(folder / "manifest.json", MAX_MANIFEST_BYTES))
        if not isinstance(manifest, dict):
            raise ValueError("it holds no JSON object")
        if manifest["format"] != FORMAT:
            raise ValueError(f"its format is {str(manifest['format'])[:40]!r}, not {FORMAT!r}")
        if manifest["version"] != VERSION:
            other = f"{folder} is a bundle of version {str(manifest['version'])[:9]}, this runtime reads {VERSION}"
            raise DeviceError(f"{other}; run it with the edgemeta_device.py that came with it, or {AGAIN}")
        wanted = GRAPHS if manifest["learner"]["on"] == "features" else GRAPHS[1:]
        graphs = {name: _verified(folder, manifest, name) for name in wanted}
        if manifest["id"] != _identity(manifest, wanted):
            raise DeviceError(f"{folder}: the manifest was changed after it was written; {AGAIN}")
    except DAMAGE as error:
        raise DeviceError(f"{folder}: the manifest is damaged ({line(error)}); {AGAIN}") from None
    return manifest, graphs


def _identity(manifest: Mapping[str, Any], graphs: tuple[str, ...]) -> str:
    """What a state depends on: the graphs, and what becomes of an image before and after them."""
    digests = [manifest["files"][manifest["graphs"][name]["file"]]["sha256"] for name in graphs]
    parts = [digests, manifest["normalisation"], manifest["learner"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _verified(folder: Path, manifest: Mapping[str, Any], graph: str) -> bytes:
    name = manifest["graphs"][graph]["file"]
    if Path(name).name != name or "\\" in name:
        raise DeviceError(f"{folder}: {name!r} is not a plain file name; {AGAIN}")
    info = manifest["files"][name]
    data = bounded(folder / name, min(int(info["bytes"]), MAX_FILE_BYTES))
    if len(data) != info["bytes"] or hashlib.sha256(data).hexdigest() != info["sha256"]:
        raise DeviceError(f"{folder / name} is not the file its manifest describes; {AGAIN}")
    return data


# States


def digest(path: Name) -> str:
    return hashlib.sha256(bounded(Path(path), MAX_FILE_BYTES)).hexdigest()


def read_state(path: Name, bundle: str) -> tuple[dict[str, Any], dict[str, np.ndarray], str]:
    """Head, arrays and SHA-256 of a state of the bundle with this id; what the arrays hold is not checked here."""
    data = bounded(Path(path), MAX_FILE_BYTES)
    with damage_told(path):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(item.file_size for item in archive.infolist()) > MAX_FILE_BYTES:
                raise ValueError("too large")
            arrays = {item.filename[: -len(".npy")]: _array(archive, item) for item in archive.infolist()}
        head = json.loads(arrays.pop("head").tobytes())
        if head["version"] != STATE_VERSION:
            other = f"{path} is a state of version {str(head['version'])[:9]}, this runtime reads {STATE_VERSION}"
            raise DeviceError(f"{other}; load it with the runtime that wrote it or enroll again")
        if head["bundle"] != bundle:
            raise DeviceError(f"{path} is of another bundle; load the bundle it was learned with or enroll again")
    return head, arrays, hashlib.sha256(data).hexdigest()


def _array(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> np.ndarray:
    """A member of an .npz; a header that asks for other bytes than are there is refused before they are allocated."""
    with archive.open(item) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, kind = read(file)
        there = item.file_size - file.tell()
        if kind.hasobject or min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != there:
            raise ValueError(f"{item.filename} is not as large as it says")
        array = np.frombuffer(file.read(), kind)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


@contextlib.contextmanager
def damage_told(path: Name) -> Iterator[None]:
    """Whatever reading a damaged state raises, in one line; numpy and zipfile tell of bytes that lie in many ways."""
    try:
        yield
    except DeviceError:
        raise
    except Exception as error:
        raise DeviceError(f"{path} is damaged ({line(error)}); use a copy or enroll again") from None


def write_state(path: Name, head: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Write under a temporary name, then rename: a power cut leaves the old state or the new. Its SHA-256."""
    target, buffer, temporary = Path(path), io.BytesIO(), ""
    np.savez(buffer, **{"head": np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays})  # type: ignore[arg-type]
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # the bytes before the name
        os.replace(temporary, target)
        _sync(target.parent)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def _sync(folder: Path) -> None:
    """Bring a rename to the disk. Only POSIX systems open folders for this."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _unwritable(path: Name, error: OSError) -> DeviceError:
    return DeviceError(f"cannot write {path}: {error.strerror}; free space or choose another folder")


def now() -> float:
    """The time by the clock that stamps files: `time.time()` is finer, and so ahead of it by up to a tick."""
    return time.clock_gettime(CLOCK_REALTIME_COARSE) if sys.platform == "linux" else time.time()


@contextlib.contextmanager
def locked(path: Name, wait_s: float = LOCK_S) -> Iterator[None]:
    """Be the only process that writes a state. The lock is a file beside it, which goes with its owner's end."""
    if not LOCKS:
        yield
        return
    target = Path(path)
    lock = target.with_name(f".{target.name}.lock")
    handle = _claimed(target, lock, time.monotonic() + wait_s)
    try:
        for left in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):  # of a process that a power cut ended
            with contextlib.suppress(OSError):
                left.unlink()
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _claimed(path: Path, lock: Path, deadline: float) -> int:
    """The open, locked file. One that its last owner has just removed locks nothing: then again."""
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unwritable(path, error) from None
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(lock)):
                return handle
        os.close(handle)
        if time.monotonic() > deadline:
            raise DeviceError(f"another process keeps writing {path}; run this again when it is done")
        time.sleep(0.02)
