"""Writing files so that a kill at any moment leaves the old one or the new one, never half of one."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from edgemeta.errors import EdgemetaError

_PACKAGE = Path(__file__).parent


def write_bytes(path: Path | str, data: bytes) -> Path:
    """Write under a temporary name in the same folder, flush to disk, rename."""
    path = Path(path)
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise EdgemetaError(f"cannot write {path}: {error.strerror}; free space or choose another folder") from error
    return path


def write_text(path: Path | str, text: str) -> Path:
    return write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> Path:
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def resource(name: str) -> Path:
    """A folder that ships (`profiles`, `export`): beside the package in a checkout, inside it in a wheel."""
    beside = _PACKAGE.parent / name
    return beside if (_PACKAGE.parent / "pyproject.toml").exists() else _PACKAGE / f"_{name}"
