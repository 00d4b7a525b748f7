"""A training under way, on disk: enough to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from edgemeta.contracts import Params
from edgemeta.errors import BadData, first_line
from edgemeta.files import write_bytes
from edgemeta.learners.outer import laid_out

GROUPS = ("slow", "good", "momentum", "variance", "best")
NUMBERS = ("phase", "done", "steps", "bad", "best_score", "stale")


@dataclass
class Progress:
    """Where a training stands. `identity` says which training: another one's progress is of no use to it."""

    identity: str
    slow: Params
    rng: np.random.Generator
    phase: int = 0
    done: int = 0  # episodes of the phase
    steps: int = 0  # that Adam has taken in the phase
    momentum: dict[str, Tensor] = field(default_factory=dict)  # Adam's, by name; empty at the start of a phase
    variance: dict[str, Tensor] = field(default_factory=dict)
    good: Params = field(default_factory=dict)  # the last parameters that are known to have given a loss
    bad: int = 0  # updates in a row that gave none
    best: Params = field(default_factory=dict)
    best_score: float | None = None
    stale: int = 0  # validations since the best


def save_progress(path: Path, progress: Progress) -> None:
    write_bytes(path, packed(progress))


def packed(progress: Progress) -> bytes:
    """All of it in the safetensors format; `unpacked` is the way back."""
    tensors = {
        f"{group}/{name}": value.detach().cpu().contiguous()
        for group in GROUPS
        for name, value in getattr(progress, group).items()
    }
    note = {name: getattr(progress, name) for name in ("identity", *NUMBERS)}
    text = json.dumps(note | {"rng": progress.rng.bit_generator.state})
    return save(tensors, metadata={"progress": text, "sha256": _digest(text, tensors)})


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].numpy().tobytes())
    return found.hexdigest()


def load_progress(path: Path, identity: str, device: torch.device) -> Progress | None:
    """The progress kept at `path`; None where there is none, or where it is another training's."""
    if not path.exists():
        return None
    try:
        found = unpacked(path.read_bytes(), device)
        return found if found.identity == identity else None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        reason = first_line(error)
        raise BadData(f"cannot read the checkpoint {path}: {reason}; delete it to train from the start") from error


def unpacked(data: bytes, device: torch.device) -> Progress:
    """The progress of these bytes; ValueError, KeyError, TypeError or SafetensorError where they are damaged."""
    header = int.from_bytes(data[:8], "little")
    kept, tensors = json.loads(data[8 : 8 + header])["__metadata__"], load(data)
    if kept["sha256"] != _digest(kept["progress"], tensors):
        raise ValueError("it is not what was written")
    return _progress(json.loads(kept["progress"]), tensors, device)


def _progress(note: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device) -> Progress:
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in GROUPS}
    for key, value in tensors.items():
        group, name = key.split("/", 1)
        groups[group][name] = laid_out(value.to(device, copy=True))  # out of the file, into memory as torch aligns it
    rng = np.random.Generator(np.random.PCG64(0))
    rng.bit_generator.state = note["rng"]
    kept: dict[str, Any] = {name: note[name] for name in ("identity", *NUMBERS)} | groups
    return Progress(rng=rng, **kept)
