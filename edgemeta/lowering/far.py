"""Timing a bundle on a device behind ssh: its graphs go there with what they are fed, the timings come back."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgemeta.errors import BadBundle, BadProfile, first_mistake
from edgemeta.latency import remote
from edgemeta.latency.runners import RUNNER
from edgemeta.lowering import bundle
from edgemeta.lowering.manifest import Measured

FORMAT = 1
TIMER = "edgemeta_time.py"
SECONDS = 1.0  # for each graph, once it is warm
REPEATS = {"min_repeats": 30, "max_repeats": 1000}  # as `latency.measure.time_model` has them
MAX_ANSWER = 2**20  # characters


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    measured: Measured | None = None
    failed: Annotated[str, Field(max_length=1000)] = ""


def measure(
    folder: Path | str,
    to: remote.Target,
    *,
    threads: int = 1,
    seconds: float = SECONDS,
    progress: bool = True,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """As `bundle.measure`, on another device, with numpy and ONNX Runtime alone there.

    `remote.Unreachable` where it does not answer, `BadProfile` where it lacks what it needs or answers beyond belief,
    `BadBundle` where a graph does not run there.
    """
    folder = Path(folder)
    packed = _packed(folder, threads)
    name = f"bundle-{hashlib.sha256(packed).hexdigest()[:16]}"
    work = remote.Work(name, f"timing {folder.name}", packed, TIMER, seconds, keep=False)
    answer = _read(remote.done(work, to, progress=progress, stop=stop), to)
    if answer.measured is None:
        raise BadBundle(f"{to} cannot run the bundle: {' '.join(answer.failed.split())}")
    if answer.measured.threads != threads or (answer.measured.body_ms is None) == (
        "body" in bundle.read(folder).graphs
    ):
        raise BadProfile(f"{to} has answered for another bundle; look at what its Python runs")
    return answer.measured.model_dump(mode="json")


def _packed(folder: Path, threads: int) -> bytes:
    found = bundle.read(folder)
    files = {name: graph.file for name, graph in found.graphs.items()}
    feeds = bundle.typical(found, (folder / files["adapt"]).read_bytes())
    given = {f"{graph}.{name}": array for graph, own in feeds.items() for name, array in own.items()}
    arrays = io.BytesIO()
    np.savez(arrays, **given)  # type: ignore[arg-type]  # names may be anything but `file`
    plan = {"format": FORMAT, "graphs": files, "threads": threads, **REPEATS}
    contents: dict[str, bytes | Path] = {file: folder / file for file in files.values()}
    contents |= {"feeds.npz": arrays.getvalue(), "plan.json": json.dumps(plan).encode()}
    return remote.pack(contents, TIMER, RUNNER)


def _read(text: str, to: remote.Target) -> _Answer:
    try:
        if len(text) > MAX_ANSWER:
            raise BadProfile(f"{to} answered with {len(text)} characters, no timings; look at what its Python runs")
        answer = _Answer.model_validate_json(text)
    except ValidationError as error:
        wrong = first_mistake(error, "the answer")
        raise BadProfile(f"{to} answered what are no timings: {wrong}; update it") from None
    if (answer.measured is None) == (not answer.failed):
        raise BadProfile(f"{to} answered neither timings nor why there are none; look at what its Python runs")
    return answer
