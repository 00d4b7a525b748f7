"""Who meta-trains the small network of the tests, made anew in any process, and on what."""

import numpy as np
import torch

from edgemeta.contracts import Learner, Net, Params
from edgemeta.learners import LEARNERS
from edgemeta.learners.protonet import protonet
from edgemeta.learners.settings import Training
from edgemeta.learners.train import train
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny
from tests.blobs import blob_pool

POOL = blob_pool(classes=12, seed=0)


def small_net() -> Net:
    """Of every kind of layer, for (1, 12, 12) images."""
    space = tiny()
    return build(space.ops(space.arch([{"width": 4}, {"width": 8, "kind": "mb3", "depth": 2}])))


def crew(*names: str) -> list[Learner]:
    net = small_net()
    return [protonet(net), *(LEARNERS[name](net) for name in names)]


def start_of(learner: Learner, seed: int = 0) -> Params:
    return learner.init(rng=torch.Generator().manual_seed(seed))


def same(one: Params, other: Params) -> bool:
    """Equal names and bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trained_on(learner: Learner, settings: Training, *, pools=POOL, seed=0, start=None, **rest) -> Params:
    start = start_of(learner) if start is None else start
    return train(learner, start, pools, settings, rng=np.random.default_rng(seed), **rest)
