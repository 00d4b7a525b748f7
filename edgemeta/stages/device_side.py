"""Driving the runtime that ships with bundles, as a device would: from its own file, through its own functions."""

from __future__ import annotations

import importlib
import io
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from edgemeta.contracts import Learner, Params
from edgemeta.data.episode import Pool, draw, episode
from edgemeta.errors import BadBundle, EdgemetaError
from edgemeta.files import resource
from edgemeta.learners.evaluate import queries
from edgemeta.learners.train import adapt, support_of
from edgemeta.lowering.bundle import AGAIN, RUNTIME
from edgemeta.terminal import Told, told
from edgemeta.types import Episode


def runtime(folder: Path | None = None) -> ModuleType:
    """The device runtime: the copy in a bundle, or the one that ships with edgemeta.

    Its files import one another by name, so the names are this copy's while it is loaded, and as they were afterwards.
    """
    place, names = folder or resource("export") / "python", [Path(name).stem for name in RUNTIME]
    for name in RUNTIME:
        if not (place / name).exists():
            raise BadBundle(f"{place / name} is missing; {AGAIN}")
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(place))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(names[0])
    finally:
        sys.path.remove(str(place))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(others)


@contextmanager
def _translated(module: ModuleType) -> Iterator[None]:
    try:
        yield
    except module.DeviceError as error:
        raise EdgemetaError(str(error)) from error


def run(command: str, bundle: Path, threads: int, *, quiet: bool = False, **arguments: Any) -> Told:
    """A command of the runtime (`enroll`, `predict`) and what it tells; `quiet`: without its remarks on stderr."""
    module = runtime()
    with _translated(module), redirect_stderr(io.StringIO()) if quiet else nullcontext():
        found = getattr(module.commands, f"run_{command}")(module.Device(bundle, threads), Namespace(**arguments))
    return told("\n".join(found.lines), found.facts)


def compare(
    bundle: Path,
    learner: Learner,
    slow: Params,
    pool: Pool,
    *,
    way: int,
    shot: int,
    episodes: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """The same episodes on the device runtime and in torch: accuracies of both, and how often their answers agree."""
    module, query = runtime(bundle), queries(pool, way, shot, most=5)
    device_hits, torch_hits, agreed = [], [], []
    with _translated(module), torch.no_grad():
        for _ in range(episodes):
            drawn = draw(pool, way, shot, query, rng=rng)
            task = episode(pool, drawn)
            device = module.Device(bundle)
            labels = [str(label) for label in task.support_y.tolist()]
            device.enroll(list(task.support_x.numpy()), labels)
            names, _ = device.predict(list(task.query_x.numpy()))
            guess = np.array([int(name) for name in names])
            expected = torch_guess(learner, slow, task)
            truth = task.query_y.numpy()
            device_hits.append((guess == truth).mean())
            torch_hits.append((expected == truth).mean())
            agreed.append((guess == expected).mean())
    means = [float(np.mean(values)) for values in (device_hits, torch_hits, agreed)]
    return dict(zip(("device_accuracy", "torch_accuracy", "agreement"), means, strict=True)) | {"episodes": episodes}


def torch_guess(learner: Learner, slow: Params, task: Episode, *, steps: bool = True) -> np.ndarray:
    """Torch's classes of a task's queries; without `steps` as the learner starts."""
    x = torch.cat([task.support_x, task.query_x])
    x = learner.net.body(slow, x) if learner.on_features else x
    support = support_of(task)._replace(x=x[: len(task.support_x)])
    fast = adapt(learner, slow, support) if steps else learner.start(slow, support)
    return learner.predict(slow, fast, x[len(task.support_x) :]).argmax(1).numpy()
