"""A search problem as files: what the tuner and the trials of an experiment read, each in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgemeta.errors import BadConfig, EdgemetaError, first_mistake
from edgemeta.files import write_json
from edgemeta.latency import profile as profiles
from edgemeta.latency.table import predictor
from edgemeta.learners.settings import Training
from edgemeta.search.jobs import DataSpec
from edgemeta.search.problem import Problem
from edgemeta.space.presets import SPACES
from edgemeta.space.space import Space
from edgemeta.types import Cost, Op, Profile, Shape

TASK, PROFILE = "task.json", "profile.json"


@dataclass(frozen=True)
class Task:
    """The fields of a `Problem` as JSON has them; the profile stands in a file beside it."""

    space: str  # as `SPACES` names it
    in_shape: Shape
    cap: dict[str, float | None]
    learner: str
    data: DataSpec
    weights: str  # "": beside where the trial runs, as on another machine
    device: str
    fingerprint: str
    int8: bool
    way: int
    shot: int
    rungs: tuple[int, ...]
    eval_episodes: int
    training: Training
    seed: int


def write(problem: Problem, profile: Profile, folder: Path, *, far: bool = False) -> Path:
    """Put a problem into `folder`, from which `read` makes it again; `far`: for machines that do not have our disk."""
    plain = {name: getattr(problem, name) for name in Task.__dataclass_fields__ if hasattr(problem, name)}
    plain |= {
        "space": _named(problem.space),
        "in_shape": problem.space.in_shape,
        "cap": problem.cap.to_json(),
        "weights": "" if far else str(problem.weights.resolve()),
    }
    profiles.save(profile, folder / PROFILE)
    return write_json(folder / TASK, TypeAdapter(Task).dump_python(Task(**plain), mode="json"))


def read(folder: Path, *, head: bool = True) -> Problem:
    """The problem of a folder. Without `head`, flash leaves out what the learner adds, and seconds of imports."""
    try:
        made = TypeAdapter(Task).validate_json((folder / TASK).read_bytes())
    except (OSError, ValidationError) as error:
        raise EdgemetaError(f"cannot read {folder / TASK}: {_first(error)}; start the search again") from error
    given: dict[str, Any] = {name: getattr(made, name) for name in Task.__dataclass_fields__ if name != "in_shape"}
    given |= {
        "space": SPACES[made.space](made.in_shape),
        "cap": Cost.from_json(made.cap),
        "weights": Path(made.weights or "weights").resolve(),
        "predictor": predictor(profiles.load(folder / PROFILE)),
    }
    if head:
        given["head_kib"] = _head_kib(made.learner)
    return Problem(**given)


def _named(space: Space) -> str:
    """What `SPACES` calls a space."""
    for name, make in SPACES.items():
        with suppress(BadConfig):  # not for inputs of this shape
            if make(space.in_shape) == space:
                return name
    raise BadConfig(f"{space.name} has no name by which a trial could make it; choose one of {', '.join(SPACES)}")


def _head_kib(learner: str) -> Callable[[Sequence[Op]], float]:
    from edgemeta.lowering.bundle import head_kib  # seconds to import, which trials need not wait for

    return partial(head_kib, learner)


def _first(error: Exception) -> str:
    """One line of an error."""
    return first_mistake(error, TASK) if isinstance(error, ValidationError) else json.dumps(str(error))
