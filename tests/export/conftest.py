"""The device runtime, loaded as a device would: from its file, not from a package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgemeta import files
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny

RUNTIME = files.resource("export") / "python" / "edgemeta_device.py"


@pytest.fixture(scope="session")
def runtime():
    spec = importlib.util.spec_from_file_location("edgemeta_device", RUNTIME)
    module = importlib.util.module_from_spec(spec)
    sys.modules["edgemeta_device"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def net():
    space = tiny()
    return build(space.ops(space.arch([{"width": 8}, {"width": 8, "depth": 2}])))


@pytest.fixture(scope="session", params=("protonet", "anil"))
def trained(request, net):
    """(learner, slow) with statistics of images like those of `pictures`."""
    learner = LEARNERS[request.param](net)
    slow = learner.init(rng=torch.Generator().manual_seed(1))
    for _ in range(20):
        net.body(slow, torch.from_numpy(np.stack(sum(pictures(4).values(), []))[:, None]) / 255.0, train=True)
    return learner, slow


@pytest.fixture(scope="session")
def folder(trained, net, tmp_path_factory) -> Path:
    learner, slow = trained
    target = tmp_path_factory.mktemp("bundle") / learner.name
    return bundle.write(target, slow=slow, learner=learner, facts={"seed": 1}, polarity="ink-high")


def pictures(each: int, *, size: int = 12, seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Bright bars on a dark ground, uint8 (size, size): the direction and place of the bar is the class."""
    rng = np.random.default_rng(seed)
    unit = size // 12
    places = {
        "left": (slice(1, -1), slice(2, 4)),
        "right": (slice(1, -1), slice(8, 10)),
        "low": (slice(8, 10), slice(1, -1)),
    }
    drawn: dict[str, list[np.ndarray]] = {}
    for name, (rows, columns) in places.items():
        for _ in range(each):
            image = rng.integers(0, 60, (12, 12)).astype(np.uint8)
            image[rows, columns] = rng.integers(180, 256)
            drawn.setdefault(name, []).append(np.kron(image, np.ones((unit, unit), np.uint8)))
    return drawn


@pytest.fixture(scope="session")
def draw():
    return pictures
