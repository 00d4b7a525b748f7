"""Looked up in one go is what one by one says: for every predictor, exhaustively where the space is small."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from edgemeta.contracts import Additive
from edgemeta.errors import BadConfig
from edgemeta.latency import batch, cover
from edgemeta.latency.features import KNOTS_KIB, slope_name
from edgemeta.latency.table import PREDICTORS, predictor
from edgemeta.space.presets import SPACES, edge
from edgemeta.space.presets import tiny as tiny_space
from edgemeta.space.space import Space
from edgemeta.space.staged import Stage, staged
from edgemeta.types import Arch, NetTiming, Profile, Timing

CLOSE = 1e-5


def profiles(space: Space, null: Profile) -> dict[str, Profile]:
    """Made-up rates for each predictor, uneven so that no two operators weigh the same."""

    def ms(op) -> float:
        return 0.002 + op.macs / 2e7 + op.act_bytes / 3e7 + (len(op.key) % 7) / 1e4

    slopes = {slope_name(knot): 0.1 + i / 10 for i, knot in enumerate(KNOTS_KIB)}
    rows = {key: Timing(ms(op), 0.0, 1) for key, op in cover.operators(space).items()}
    some = [Arch(space.name, tuple(map(int, row))) for row in drawn(space, 6, seed=1)]
    nets = tuple(NetTiming(arch, Timing(sum(map(ms, space.ops(arch))), 0.0, 1)) for arch in some)
    return {
        "table": replace(null, overhead={"run_ms": 0.01, **slopes}, ops=rows),
        "per_mac": null,
        "few_shot": replace(null, overhead={}, nets=nets),
    }


def drawn(space: Space, count: int, *, seed: int) -> np.ndarray:
    """(count, slots) random picks."""
    sizes = [len(options) for _, options in space.slots]
    return np.random.default_rng(seed).integers(0, sizes, (count, len(sizes)), dtype=np.uint8)


def one_by_one(space: Space, predict, picks: np.ndarray) -> np.ndarray:
    return np.array([predict.latency(space.ops(Arch(space.name, tuple(map(int, row))))).ms for row in picks])


@pytest.mark.parametrize("name", PREDICTORS)
def test_every_architecture_of_a_small_space(name, null):
    """All 4,096 where one by one is quick, else every seventh."""
    space = tiny_space()
    predict = predictor(profiles(space, null)[name])
    picks = np.array(list(itertools.product(*(space.options(i) for i in range(len(space.slots))))))
    assert len(picks) == space.size
    together = batch.layout(space, predict.additive(space)).latency_ms(picks)
    some = slice(0, None, 7 if name == "few_shot" else 1)
    assert together[some] == pytest.approx(one_by_one(space, predict, picks[some]), rel=CLOSE)


@pytest.mark.parametrize("name", PREDICTORS)
def test_edge(name, null):
    space = edge()
    predict = predictor(profiles(space, null)[name])
    picks = drawn(space, 100, seed=2)
    together = batch.layout(space, predict.additive(space)).latency_ms(picks)
    assert together == pytest.approx(one_by_one(space, predict, picks), rel=CLOSE)
    assert len(np.unique(together)) > 70


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 2, 7), (2, 5, 5)], ids=str)
@pytest.mark.parametrize("name", ["table", "per_mac"])
def test_maps_that_shrink_to_a_point(shape, name, null):
    """Pools that are left out, and networks that end without a closing pool."""
    stage = Stage(depth=(1, 2), width=(4, 6), kernel=(3,), kind=("conv", "mb3"))
    space = staged("tiny", shape, (stage, stage, stage))
    predict = predictor(profiles(space, null)[name])
    picks = np.array(list(itertools.product(*(space.options(i) for i in range(len(space.slots))))))[::5]
    together = batch.layout(space, predict.additive(space)).latency_ms(picks)
    assert together == pytest.approx(one_by_one(space, predict, picks), rel=CLOSE)


@pytest.mark.parametrize("name", ["seq", "fbnet", "macro"])
def test_other_spaces_of_segments(name, null):
    """Series, and blocks behind what every network has."""
    space = SPACES[name]()
    predict = predictor(null)
    picks = drawn(space, 60, seed=5)
    together = batch.layout(space, predict.additive(space)).latency_ms(picks)
    assert together == pytest.approx(one_by_one(space, predict, picks), rel=CLOSE)


def test_cells_that_are_all_alike_are_refused(null):
    with pytest.raises(BadConfig, match="one by one"):
        batch.layout(SPACES["darts"](), predictor(null).additive(SPACES["darts"]()))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64])
def test_picks_of_any_integer_type(dtype, null):
    space = edge()
    laid = batch.layout(space, predictor(null).additive(space))
    picks = drawn(space, 100, seed=3)
    assert np.array_equal(laid.latency_ms(picks.astype(dtype)), laid.latency_ms(picks.astype(np.int64)))


def test_seams_between_chunks_do_not_show(null, monkeypatch):
    space = tiny_space()
    laid = batch.layout(space, predictor(null).additive(space))
    picks = drawn(space, 1000, seed=4)
    whole = laid.latency_ms(picks)
    monkeypatch.setattr(batch, "CHUNK", 64)
    assert np.array_equal(laid.latency_ms(picks), whole)
    assert np.array_equal(laid.latency_ms(picks[:1]), whole[:1])
    assert laid.latency_ms(picks[:0]).shape == (0,)


def test_a_layout_walks_stages_not_architectures(null):
    """Each stage behind each shape that can enter it, once; the shorter networks once more to take them off."""
    space, walked = edge(), []
    plain = predictor(null).additive(space)
    watched = Additive(lambda networks: walked.append(len(networks)) or plain.sums(networks), plain.latency_ms)
    batch.layout(space, watched)
    walks = list(cover.walks(space))
    assert sum(walked) == sum(len(walk.leaving) for walk in walks) + sum(len(walk.before) for walk in walks[1:])
    assert sum(walked) < 1e-4 * space.size
