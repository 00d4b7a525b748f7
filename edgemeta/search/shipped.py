"""Files that ship with the wheel: safetensors with an index in the metadata, bounded in size."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel
from safetensors import safe_open

from edgemeta.errors import BadData

Index = TypeVar("Index", bound=BaseModel)


def again(kind: str) -> str:
    """What to do about a file that is not as it shipped."""
    return f"install edgemeta again, or make the file anew with tools/make_{kind}.py"


def read_index(path: Path, kind: str, model: type[Index], *, most: int) -> Index:
    """The index that is kept under the name of the kind. The size, in bytes, is checked before anything is read.

    OSError, SafetensorError and pydantic's ValidationError pass through: the caller knows what to say.
    """
    size = path.stat().st_size
    if size > most:
        raise BadData(f"{path} has {size} bytes, a {kind} at most {most}; {again(kind)}")
    with safe_open(str(path), framework="pt") as file:
        return model.model_validate_json((file.metadata() or {}).get(kind, ""))
