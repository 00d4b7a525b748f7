"""How long, on what and how steadily a learner is trained."""

import numpy as np
import pytest

from edgemeta.errors import BadConfig, BadData
from edgemeta.learners import LEARNERS
from edgemeta.learners.settings import RECIPES, Training, draw_tasks, recipe
from tests.blobs import blob_pool


@pytest.mark.parametrize("steps", [2, 5])
def test_losses_of_all_steps_count_alike_at_first_and_only_the_last_one_later(steps):
    settings = Training(multi_step=0.4)
    assert settings.weights(0.0, steps) == pytest.approx((1 / steps,) * steps)
    half = settings.weights(0.2, steps)
    assert half[:-1] == pytest.approx((0.5 / steps,) * (steps - 1)) and sum(half) == pytest.approx(1)
    early = [settings.weights(progress, steps)[0] for progress in np.linspace(0, 0.39, 9)]
    assert early == sorted(early, reverse=True)
    assert settings.weights(0.4, steps) == settings.weights(1.0, steps) == (1.0,)


def test_one_step_or_no_wish_for_it_has_one_loss():
    assert Training(multi_step=0.4).weights(0.0, 1) == (1.0,)
    assert Training().weights(0.0, 5) == (1.0,)


def test_warm_up_is_a_share_and_what_was_seen_before_counts_as_one():
    settings = Training(1000, way=5, shot=5, tasks=4, warmup=0.3, patience=2)
    warm, rest = settings.phases()
    assert (warm.episodes, warm.way, warm.patience) == (300, 30, 0)
    assert (rest.episodes, rest.way, rest.tasks, rest.patience) == (700, 5, 4, 2)
    assert settings.after(100).phases()[0].episodes == 200
    assert settings.after(500).phases()[0].episodes == 0
    assert settings.after(0) == settings and settings.lasting(10).phases()[0].episodes == 3


def test_shards_have_a_task_or_more_each_in_the_warm_up_as_well():
    split = Training(1000, tasks=4, warmup=0.3).split(3)
    assert (split.tasks, split.shards) == (6, 3)
    assert [(phase.tasks, phase.shards) for phase in split.phases()] == [(3, 3), (6, 3)]
    assert Training(tasks=4).split(2) == Training(tasks=4, shards=2) and Training().split(1) == Training()


def test_ways_are_those_that_every_pool_has():
    large, small = blob_pool(classes=20, seed=0), blob_pool(classes=6, seed=1, per_class=4)
    assert Training(way=30).suited([large]).way == 20
    assert Training(way=(5, 30)).suited([large, small]).way == (5, 6)
    with pytest.raises(BadData, match="2-way 4-shot with 1 queries needs 2 classes: 0 of 6"):
        draw_tasks([small], Training(shot=4).suited([small]), rng=np.random.default_rng(0))


def test_sizes_are_drawn_for_each_update_and_pools_for_each_task():
    pools, rng = [blob_pool(classes=20, seed=0), blob_pool(classes=8, seed=1)], np.random.default_rng(0)
    settings, seen, places = Training(way=(3, 5), shot=(1, 4), query=2, tasks=4), set(), []
    for _ in range(60):
        drawn = draw_tasks(pools, settings, rng=rng)
        shapes = {(*chosen.support.shape, chosen.query.shape[1]) for _, chosen in drawn}
        assert len(shapes) == 1
        seen |= shapes
        places += [place for place, _ in drawn]
    assert seen == {(way, shot, 2) for way in (3, 5) for shot in (1, 4)}
    assert 0.4 < np.mean(places) < 0.6  # the small pool is asked as often as the large one


def test_one_pool_takes_nothing_from_the_stream():
    """What a training on one pool draws is what `draw` alone would have drawn."""
    from edgemeta.data.episode import draw

    pool, settings = blob_pool(classes=9, seed=0), Training(way=4, shot=2, query=3)
    ((_, drawn),) = draw_tasks([pool], settings, rng=np.random.default_rng(5))
    alone = draw(pool, 4, 2, 3, rng=np.random.default_rng(5))
    assert all(np.array_equal(a, b) for a, b in zip(drawn, alone, strict=True))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"tasks": 4, "shards": 3}, "4 tasks per update do not split into 3 shards; make it a divisor"),
        ({"shards": 0}, "do not split into 0 shards"),
        ({"warmup": 1.5}, "are shares; give 0 to 1"),
        ({"multi_step": -0.1}, "are shares; give 0 to 1"),
        ({"way": 1}, "way = 1 trains nothing; give 2 or more"),
        ({"way": (5, 1)}, r"way = \(5, 1\) trains nothing"),
        ({"way": ()}, r"no training has way \(\)"),
        ({"shot": 0}, "shot = 0 trains nothing; give 1 or more"),
        ({"query": 0}, "query = 0 trains nothing"),
        ({"check_every": 0}, "check_every = 0"),
        ({"patience": -1}, "patience = -1"),
        ({"lr": float("nan")}, "lr nan"),
        ({"clip": 0.0}, "clip 0.0"),
    ],
)
def test_settings_that_train_nothing_are_refused_in_one_line(wrong, says):
    with pytest.raises(BadConfig, match=says) as refusal:
        Training(**wrong)
    assert "\n" not in str(refusal.value)


def test_recipes_are_of_learners_and_the_rest_train_as_usual():
    assert set(RECIPES) <= set(LEARNERS)
    assert all(recipe(name) == RECIPES.get(name, Training()) for name in LEARNERS)
