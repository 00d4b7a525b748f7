"""What the meta-learned searcher knows before a search: the policy that ships, and how a problem is put to it.

The file is safetensors with an index in its metadata. `tools/make_policy.py` makes the one that ships.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

import edgemeta
from edgemeta.data.episode import Pool
from edgemeta.errors import BadData
from edgemeta.files import write_bytes
from edgemeta.search.jobs import data_pool
from edgemeta.search.metapolicy import ANCHORS, Knowledge, Triple
from edgemeta.search.problem import Problem
from edgemeta.search.shipped import again, read_index
from edgemeta.space.space import Space
from edgemeta.tasks import policy
from edgemeta.tasks.policy import TaskGraph, task_graph
from edgemeta.types import Arch

SHIPPED = Path(edgemeta.__file__).parent / "zoo" / "policy-edge.safetensors"
FORMAT, VERSION = "edgemeta-policy", 1
MAX_BYTES = 1_000_000
LOOSE = 4.0  # times the slowest anchor: the budget that no cap stands for
AGAIN = again("policy")


class _Index(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    format: str
    version: int
    slots: list[list[JsonValue]]  # name, then options
    tasks: dict[str, dict[str, float]]  # attributes of each
    doubt: Annotated[float, Field(ge=0, le=1)]
    facts: dict[str, JsonValue]


class Shipped(NamedTuple):
    """A policy file."""

    knowledge: Knowledge
    slots: list[list[Any]]
    facts: Mapping[str, Any]


def write(path: Path | str, knowledge: Knowledge, space: Space, facts: Mapping[str, Any]) -> Path:
    """One file of what was meta-learned for a space, for inputs of any shape."""
    index = {"format": FORMAT, "version": VERSION, "slots": _slots(space), "tasks": knowledge.tasks}
    index |= {"doubt": knowledge.doubt, "facts": dict(facts)}
    arrays = {"anchors": knowledge.anchors, "centre": knowledge.centre, "unit": knowledge.unit}
    tensors = {f"policy/{name}": value.contiguous() for name, value in knowledge.params.items()}
    tensors |= {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
    return write_bytes(path, save(tensors, metadata={"policy": json.dumps(index)}))


def read(path: Path | str) -> Shipped:
    """The policy in a file; its size is checked before it is read, its shapes before it is used."""
    try:
        index = read_index(Path(path), "policy", _Index, most=MAX_BYTES)
        tensors = load_file(path)
    except (OSError, SafetensorError, ValidationError, ValueError) as error:
        raise BadData(f"{path} is no policy file: {' '.join(str(error).split())[:200]}; {AGAIN}") from None
    if (index.format, index.version) != (FORMAT, VERSION):
        raise BadData(f"{path} is {index.format} {index.version}, not {FORMAT} {VERSION}; {AGAIN}")
    params = {name.removeprefix("policy/"): value for name, value in tensors.items() if name.startswith("policy/")}
    slots = tuple(len(options) - 1 for options in index.slots)
    wanted = _shapes(slots, len(index.tasks))
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if found != wanted or not all(value.isfinite().all() for value in tensors.values()):
        wrong = sorted(set(found.items()) ^ set(wanted.items()))
        raise BadData(f"{path}: {wrong[0][0] if wrong else 'a parameter'} is not that of such a policy; {AGAIN}")
    anchors, centre, unit = (tensors[name].numpy() for name in ("anchors", "centre", "unit"))
    return Shipped(Knowledge(slots, params, anchors, index.tasks, centre, unit, index.doubt), index.slots, index.facts)


def _shapes(slots: tuple[int, ...], tasks: int) -> dict[str, tuple[int, ...]]:
    rng = torch.Generator().manual_seed(0)
    params = policy.init(slots, ANCHORS + 1, tasks, rng=rng)
    shapes = {f"policy/{name}": tuple(value.shape) for name, value in params.items()}
    return shapes | {"anchors": (ANCHORS, len(slots)), "centre": (tasks,), "unit": (tasks,)}


def _slots(space: Space) -> list[list[Any]]:
    return [[name, *options] for name, options in space.slots]


@lru_cache(maxsize=1)
def shipped() -> Shipped | None:
    """The policy that came with the installation, where there is one."""
    return read(SHIPPED) if SHIPPED.exists() else None


def known(space: Space) -> Knowledge | None:
    """What is known of a space: its decisions must be those of the policy that ships, whatever its input."""
    found = shipped()
    return found.knowledge if found and found.slots == _slots(space) else None


def triple(knowledge: Knowledge, problem: Problem) -> Triple:
    """A problem as the policy is asked: its training classes, its device by predicted latencies, its latency cap."""
    archs = [Arch(problem.space.name, tuple(row)) for row in knowledge.anchors.tolist()]
    log_ms = np.log([problem.bound(arch).latency_ms for arch in archs])
    return Triple(graph(problem), log_ms, min(problem.cap.latency_ms, LOOSE * math.exp(log_ms.max())))


def graph(problem: Problem) -> TaskGraph:
    """The task of a problem as a graph of its attributes."""
    return task_graph(attributes(data_pool(problem.data, "train"), problem.space, problem.shot))


def attributes(pool: Pool, space: Space, shot: int) -> dict[str, float]:
    """How many classes teach, of how many examples on average, the shots of a task, and the size of its images."""
    channels, height, width = space.in_shape
    sizes = {"channels": float(channels), "resolution": math.sqrt(height * width)}
    examples = float(np.mean([len(own) for own in pool.by_class]))
    return {"classes": len(pool.by_class), "examples": examples, "shots": shot, **sizes}
