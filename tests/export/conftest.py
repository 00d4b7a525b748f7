"""The device runtime, loaded as a device would: from its folder, not from a package."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from edgemeta import files
from edgemeta.contracts import Learner, Params
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle
from edgemeta.nets.build import build
from edgemeta.types import Op

sys.path.insert(0, str(files.resource("export") / "python"))  # the runtime's files lie side by side


class Case(NamedTuple):
    learner: Learner
    slow: Params
    folder: Path  # of its bundle


@pytest.fixture(scope="session")
def runtime():
    return importlib.import_module("edgemeta_device")


@pytest.fixture(scope="session")
def images():
    return importlib.import_module("edgemeta_images")


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """name -> Case, each made once for all processes, on a network of one convolution: lowering takes seconds."""
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "bundles"
    net = build((Op("conv", (1, 12, 12), (2, 3, 3), kernel=5, stride=4, act="relu"),))

    @functools.cache
    def made(name: str) -> Case:
        learner = LEARNERS[name](net)
        slow = learner.init(rng=torch.Generator().manual_seed(1))
        for _ in range(20):  # statistics of images like those of `pictures`
            net.body(slow, torch.from_numpy(np.stack(sum(pictures(4).values(), []))[:, None]) / 255.0, train=True)
        if not (root / name).exists():  # it is written in one move
            bundle.write(root / name, slow=slow, learner=learner, facts={"seed": 1}, polarity="ink-high")
        return Case(learner, slow, root / name)

    return made


@pytest.fixture(scope="session")
def folder(bundles) -> Path:
    return bundles("protonet").folder


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


@pytest.fixture(scope="session")
def one_line():
    """The message of an error that a user is to read."""

    def message(error) -> str:
        text = str(error.value)
        assert text and "\n" not in text and len(text) < 400
        return text

    return message
