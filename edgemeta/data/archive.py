"""Reading .npz files that may be damaged; nothing is ever unpickled."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

# What reading a damaged, encrypted or foreign archive raises.
DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_arrays(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """The named arrays of an archive; raises one of DAMAGED."""
    with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as archive:
        return tuple(archive[name] for name in names)
