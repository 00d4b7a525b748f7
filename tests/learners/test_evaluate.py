"""The number that everything is judged by."""

import numpy as np
import pytest
import torch

from edgemeta.contracts import Learner
from edgemeta.data.episode import draw, episode
from edgemeta.errors import BadConfig, BadData
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import Score, by_class, evaluate, features, grid
from edgemeta.learners.train import adapt, support_of
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny
from tests.blobs import blob_pool

TASK = {"way": 4, "shot": 2, "query": 5}
KNOWN = {"head.log_temperature": torch.tensor(0.0)}


@pytest.fixture
def net():
    space = tiny()
    return build(space.ops(space.arch([{"width": 8}, {"width": 8}])))


@pytest.fixture
def protonet(net) -> Learner:
    return LEARNERS["protonet"](net)


@pytest.fixture
def pool():
    """Eight classes of ten images."""
    return blob_pool(classes=8, seed=0)


def one_hot() -> torch.Tensor:
    """Features (80, 8) that name the class."""
    return torch.eye(8).repeat_interleave(10, 0)


def test_known_features_give_known_accuracy(protonet, pool):
    """One-hot class features are classified perfectly, shuffled ones at chance."""
    perfect = evaluate(protonet, KNOWN, pool, one_hot(), episodes=200, rng=np.random.default_rng(0), **TASK)
    noise = torch.randn(80, 8, generator=torch.Generator().manual_seed(0))
    chance = evaluate(protonet, KNOWN, pool, noise, episodes=200, rng=np.random.default_rng(0), **TASK)
    assert perfect.mean == 1.0 and perfect.ci95 == 0.0
    assert abs(chance.mean - 0.25) < 0.05 and 0.005 < chance.ci95 < 0.03


def test_a_thousand_episodes_unless_asked(protonet, pool):
    assert (
        evaluate(protonet, KNOWN, pool, one_hot(), way=2, shot=1, query=1, rng=np.random.default_rng(0)).episodes
        == 1000
    )


def test_the_interval_holds_the_truth_nineteen_times_in_twenty(protonet, pool):
    """Noise has an accuracy of exactly 1 / way."""
    inside = 0
    for seed in range(60):
        noise = torch.randn(80, 8, generator=torch.Generator().manual_seed(seed))
        task = {"way": 2, "shot": 1, "query": 1, "episodes": 40}
        score = evaluate(protonet, KNOWN, pool, noise, rng=np.random.default_rng(seed), **task)
        inside += abs(score.mean - 0.5) <= score.ci95
    assert 51 <= inside <= 60


def test_features_of_an_image_do_not_depend_on_the_others(protonet, pool):
    slow = protonet.init(rng=torch.Generator().manual_seed(0))
    torch.testing.assert_close(features(protonet, slow, pool, chunk=60), features(protonet, slow, pool, chunk=7))


@pytest.mark.parametrize("name", ["protonet", "matching", "matching-fce", "ridge", "anil", "lstm", "mann", "maml"])
def test_episodes_that_adapt_together_score_as_one_by_one(net, pool, name):
    """More episodes than adapt at once, and a rest; the same draws."""
    learner = LEARNERS[name](net)
    slow = learner.init(rng=torch.Generator().manual_seed(0))
    z, rng, alone = features(learner, slow, pool), np.random.default_rng(1), []
    for _ in range(19):
        task = episode(pool, draw(pool, 4, 2, 5, rng=rng), z)
        fast = adapt(learner, slow, support_of(task))
        alone.append((learner.predict(slow, fast, task.query_x).argmax(1) == task.query_y).float().mean().item())
    score = evaluate(learner, slow, pool, z, episodes=19, rng=np.random.default_rng(1), **TASK)
    assert score.mean == pytest.approx(np.mean(alone), abs=0.003)  # one query of 380 may fall on the other side
    assert score.ci95 == pytest.approx(1.96 * np.std(alone, ddof=1) / 19**0.5, abs=0.005)


def test_classes_that_look_alike_are_found(protonet, pool):
    """Features of classes 0 and 1 are the same, so half of theirs go wrong when both are drawn, and no others."""
    z = one_hot()
    z[:10] = z[10:20]
    rng = np.random.default_rng(0)
    scores = by_class(protonet, KNOWN, pool, z, way=8, shot=2, query=5, episodes=40, rng=rng)
    assert set(list(scores)[:2]) == {"0", "1"}
    assert scores["0"].mean + scores["1"].mean == pytest.approx(1.0)
    assert all(scores[str(i)] == Score(1.0, 0.0, 40) for i in range(2, 8))


def test_classes_average_to_the_whole(protonet, pool):
    slow = protonet.init(rng=torch.Generator().manual_seed(0))
    z = features(protonet, slow, pool)
    whole = evaluate(protonet, slow, pool, z, episodes=50, rng=np.random.default_rng(3), **TASK)
    scores = by_class(protonet, slow, pool, z, episodes=50, rng=np.random.default_rng(3), **TASK)
    assert sum(score.episodes for score in scores.values()) == 4 * 50
    assert sum(score.mean * score.episodes for score in scores.values()) / 200 == pytest.approx(whole.mean)
    assert list(scores.values()) == sorted(scores.values(), key=lambda score: score.mean)


def test_one_episode_is_no_interval(protonet, pool):
    score = evaluate(protonet, KNOWN, pool, one_hot(), episodes=1, rng=np.random.default_rng(0), **TASK)
    assert score == Score(1.0, 1.0, 1)


def test_a_grid_over_ways_and_shots(protonet, pool):
    """More shots help and more ways hurt; a cell is what its own stretch of random numbers makes it."""
    slow = protonet.init(rng=torch.Generator().manual_seed(0))
    z = features(protonet, slow, pool)
    asked = {"ways": (2, 8), "shots": (1, 5), "query": 5, "episodes": 150}
    found = grid(protonet, slow, pool, z, rng=np.random.default_rng(0), **asked)
    assert set(found) == {(2, 1), (2, 5), (8, 1), (8, 5)}
    assert found == grid(protonet, slow, pool, z, rng=np.random.default_rng(0), **asked)
    assert found[8, 1].mean < min(found[2, 1].mean, found[8, 5].mean)
    assert all(score.episodes == 150 for score in found.values())


def test_what_the_pool_cannot_give_is_refused_before_anything_runs(protonet, pool, monkeypatch):
    monkeypatch.setattr("edgemeta.learners.evaluate.evaluate", lambda *_, **__: pytest.fail("evaluated"))
    with pytest.raises(BadData, match="20-way 1-shot with 5 queries needs 20 classes"):
        grid(protonet, KNOWN, pool, one_hot(), ways=(5, 20), shots=(1,), query=5, rng=np.random.default_rng(0))


@pytest.mark.parametrize("asked", [{"episodes": 0}, {"query": 0}])
def test_nothing_to_measure_is_refused(protonet, pool, asked):
    with pytest.raises(BadConfig, match="measure nothing"):
        evaluate(protonet, KNOWN, pool, one_hot(), rng=np.random.default_rng(0), **(TASK | asked))


def test_score_reads_as_percent_and_says_when_it_is_transductive():
    assert str(Score(0.9512, 0.0034, 600)) == "95.1 ± 0.3 %"
    assert str(Score(0.9512, 0.0034, 600, True)) == "95.1 ± 0.3 %, transductive"


def test_no_learner_is_transductive_unless_asked(net, pool):
    assert not any(make(net).transductive for make in LEARNERS.values())
    asked = LEARNERS["maml"](net, transductive=True)
    slow = asked.init(rng=torch.Generator().manual_seed(0))
    task = TASK | {"episodes": 3}
    whole = evaluate(asked, slow, pool, None, rng=np.random.default_rng(0), **task)
    each = by_class(asked, slow, pool, None, rng=np.random.default_rng(0), **task)
    assert all(score.transductive and str(score).endswith(", transductive") for score in (whole, *each.values()))
