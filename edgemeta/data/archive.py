"""Reading .npz files that may be damaged; nothing is ever unpickled."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

# What reading a damaged, encrypted or foreign archive raises.
DAMAGED = (
    OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error,
    tokenize.TokenError,
)  # fmt: skip


def read_arrays(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """The named arrays of an archive; raises one of DAMAGED."""
    with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as archive:
        return tuple(archive[name] for name in names)
