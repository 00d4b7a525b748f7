"""The number that everything is judged by."""

import numpy as np
import torch

from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import Score, evaluate, features
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny
from tests.blobs import blob_pool


def test_known_features_give_known_accuracy():
    """One-hot class features are classified perfectly, shuffled ones at chance."""
    learner, pool = LEARNERS["protonet"](), blob_pool(classes=8, seed=0)
    slow = {"head.log_temperature": torch.tensor(0.0)}
    z = torch.eye(8).repeat_interleave(10, 0)
    task = {"way": 4, "shot": 2, "query": 5, "episodes": 200}
    perfect = evaluate(learner, slow, pool, z, rng=np.random.default_rng(0), **task)
    noise = torch.randn(80, 8, generator=torch.Generator().manual_seed(0))
    chance = evaluate(learner, slow, pool, noise, rng=np.random.default_rng(0), **task)
    assert perfect.mean == 1.0 and perfect.ci95 == 0.0
    assert abs(chance.mean - 0.25) < 0.05 and 0.005 < chance.ci95 < 0.03


def test_features_of_an_image_do_not_depend_on_the_others():
    space, pool = tiny(), blob_pool(classes=6, seed=2)
    net = build(space.ops(space.arch([{}, {}])))
    slow = net.init(rng=torch.Generator().manual_seed(0))
    torch.testing.assert_close(features(net, slow, pool, chunk=60), features(net, slow, pool, chunk=7))


def test_score_reads_as_percent():
    assert str(Score(0.9512, 0.0034, 600)) == "95.1 ± 0.3 %"
