"""Files that are almost right: bytes, JSON, TOML and npz archives with something wrong in them."""

from __future__ import annotations

import copy
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np

Mutate = Callable[[bytes, Random], bytes]
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.1, -0.0, 1e308, 1e-320,
    float("nan"), float("inf"), "", "x", "..", "../../etc/passwd", "a/b", "\x00", "\ud800", "é" * 3,
    "x" * 100_000, [], {}, [[]], [0] * 1000, {"": 0},
)  # fmt: skip
TOML = ('""', "nan", "-inf", "1e400", "[]", "[[1]]", "{a = 1}", "1979-05-27", "true", "0x", "'''", "99" * 200)


def bytes_of(data: bytes, rng: Random) -> bytes:
    """Some bytes changed, dropped, put in, or one piece elsewhere."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at, length = rng.randrange(len(found) + 1), rng.choice((1, 1, 2, 8, 64, 1000))
        kind = rng.randrange(6)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[at : at + length] = rng.randbytes(min(length, 64))
        elif kind == 2:
            del found[at : at + length]
        elif kind == 3:
            found[at:at] = rng.randbytes(min(length, 64))
        elif kind == 4:
            del found[at:]
        else:
            found[at:at] = found[rng.randrange(len(found) + 1) :][:length]
    return bytes(found)


def json_of(data: bytes, rng: Random) -> bytes:
    """A value somewhere in it replaced, dropped, renamed, doubled or buried."""
    if rng.random() < 0.2:
        return bytes_of(data, rng)
    record = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        record = _changed(record, rng)
    text = json.dumps(record, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if rng.random() < 0.02:
        text = b"[" * 100_000 + text
    return text


def _changed(record: Any, rng: Random) -> Any:
    """One change at a random place."""
    places, odd = list(_places(record)), copy.deepcopy(rng.choice(ODD))
    if not places:
        return odd
    holder, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0 and isinstance(holder, dict):
        holder[rng.choice(("x", "", str(key) + "_us", "id"))] = holder.pop(key)
    elif kind == 1:
        del holder[key]
    elif kind == 2 and isinstance(holder[key], list) and holder[key]:
        holder[key] = holder[key] * rng.choice((2, 50))
    elif kind == 3:
        holder[key] = [copy.copy(holder[key])]
    elif kind == 4 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = rng.choice((-1, 0, 1e3, 1e-3, 1e30)) * holder[key]
    else:
        holder[key] = odd
    return record


def _places(record: Any) -> Any:
    keys = record if isinstance(record, dict) else range(len(record)) if isinstance(record, list) else ()
    for key in list(keys):
        yield record, key
        yield from _places(record[key])


def toml_of(data: bytes, rng: Random) -> bytes:
    """Lines doubled, dropped, or with another value."""
    if rng.random() < 0.3:
        return bytes_of(data, rng)
    lines = data.decode().splitlines()
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(len(lines))
        key = lines[at].partition("=")[0]
        odd = rng.choice(TOML)
        lines[at] = rng.choice((f"{key}= {odd}", "", lines[at] + "\n" + lines[at], f"[{key}]", f"{key}.{key} = {odd}"))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def npz_of(data: bytes, rng: Random) -> bytes:
    """An archive with other arrays, headers that lie, pickles, or bombs."""
    if rng.random() < 0.3:
        return bytes_of(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    kind = rng.randrange(8)
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[rng.choice(("../../x.npy", "x" * 300 + ".npy", "", "/tmp/x.npy", "x.npy"))] = members[name]
    elif kind == 2:
        members[name] = _npy(pickle.dumps([1, 2]), "|O", (1,))
    elif kind == 3:
        members[name] = _npy(b"\0" * 64, rng.choice(("<f4", "|u1", "<i8")), rng.choice(_SHAPES))
    elif kind == 4:
        members[name] = bytes_of(members[name], rng)
    elif kind == 5:
        members[name] = _saved(_other(np.load(io.BytesIO(members[name])), rng))
    elif kind == 6:
        members[name] = _npy(bytes(rng.choice((10**6, 5 * 10**7))), "|u1", (10**6,))
    else:
        members[name] = _saved(rng.choice(_ARRAYS))
    return _zipped(members, rng)


_SHAPES = ((10**12,), (2**62, 4), (-1,), (0,), (2**31, 2**31), (1,) * 40, (16,), (), (1, 28, 28, 10**7))
_ARRAYS: Sequence[np.ndarray] = (
    np.zeros(0), np.zeros((2, 3)), np.array("x"), np.array([1 + 2j]), np.full((3, 1, 4, 4), np.nan, np.float32),
    np.array(["a", "b"]), np.zeros(3, bool), np.array([2**62, -1]), np.zeros((1, 1, 1, 1), np.uint8),
    np.zeros(5, "M8[s]"),
)  # fmt: skip


def _other(array: np.ndarray, rng: Random) -> np.ndarray:
    """The same numbers in another type, shape or range."""
    changes: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
        "float64": lambda x: x.astype(np.float64),
        "bytes": lambda x: x.astype(np.uint8),
        "turned": lambda x: x.T,
        "flat": lambda x: x.reshape(-1),
        "half": lambda x: x[: len(x) // 2] if x.ndim else x,
        "huge": lambda x: x * np.array(10**9).astype(x.dtype),
        "negative": lambda x: -x if x.dtype.kind in "if" else x,
        "nested": lambda x: x[None],
    }
    with np.errstate(all="ignore"):
        return rng.choice(list(changes.values()))(array) if array.dtype.kind in "biuf" else array


def _saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _npy(data: bytes, kind: str, shape: tuple[int, ...]) -> bytes:
    """An array file whose header says what it likes."""
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def _zipped(members: Mapping[str, bytes], rng: Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name or "x")  # its date is fixed: the bytes depend on the seed alone
            info.compress_type = archive.compression
            archive.writestr(info, data)
    return buffer.getvalue()
