from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest

from edgemeta.errors import BadProfile
from edgemeta.latency import cover
from edgemeta.latency.table import PREDICTORS, predictor
from edgemeta.space.presets import conv4_64, edge
from edgemeta.types import Timing


@pytest.fixture(params=PREDICTORS)
def predict(request, host, null):
    profiles = {"table": host, "per_mac": null}
    return PREDICTORS[request.param](profiles.get(request.param, host))


def test_predictions_are_positive_and_inside_their_interval(predict, tiny):
    for seed in range(50):
        guess = predict.latency(tiny.ops(tiny.sample(rng=Random(seed))))
        assert all(math.isfinite(value) for value in guess)
        assert 0 < guess.low_ms <= guess.ms <= guess.high_ms


def test_same_operators_same_prediction(predict, tiny, rng):
    ops = tiny.ops(tiny.sample(rng=rng))
    assert predict.latency(ops) == predict.latency(tuple(ops)) == predict.latency(list(ops))


def test_more_operators_never_take_less(predict, tiny, rng):
    ops = tiny.ops(tiny.sample(rng=rng))
    partial = [predict.latency(ops[:count]).ms for count in range(1, len(ops) + 1)]
    assert partial == sorted(partial)


def test_table_is_a_sum_a_reader_can_check(host, tiny, rng):
    ops = tiny.ops(tiny.sample(rng=rng))
    one = Timing(0.25, 0.0, 1)
    flat = replace(
        host, ops=dict.fromkeys(host.ops, one), overhead={"run_ms": 0.5, "low_ratio": 0.9, "high_ratio": 1.2}
    )
    guess = predictor(flat).latency(ops)
    assert guess.ms == 0.5 + 0.25 * len(ops)
    assert (guess.low_ms, guess.high_ms) == (guess.ms * 0.9, guess.ms * 1.2)


def test_what_leaves_the_caches_is_added(host):
    space = edge()
    ops = space.ops(conv4_64(space))
    mib = sum(op.weight_bytes + op.act_bytes for op in ops) / 2**20
    assert mib > 0.5
    free = replace(host, ops=dict.fromkeys(cover.operators(space), Timing(0.0, 0.0, 1)), overhead={"run_ms": 1.0})
    paid = replace(free, overhead={"run_ms": 1.0, "per_mib_beyond_256_kib_ms": 2.0})
    assert predictor(free).latency(ops).ms == 1.0
    assert predictor(paid).latency(ops).ms == pytest.approx(1.0 + 2.0 * (mib - 0.25))


def test_a_missing_operator_is_named_with_its_nearest(host, tiny, rng):
    ops = tiny.ops(tiny.sample(rng=rng))
    lacking = replace(host, ops={key: row for key, row in host.ops.items() if key != ops[0].key})
    with pytest.raises(BadProfile, match=f"{ops[0].key}.*did you mean.*edgemeta profile") as caught:
        predictor(lacking).latency(ops)
    assert "\n" not in str(caught.value)


def test_an_empty_table_says_so(host, tiny, rng):
    with pytest.raises(BadProfile, match="it has none"):
        predictor(replace(host, ops={}, nets=())).latency(tiny.ops(tiny.sample(rng=rng)))


def test_the_profile_decides_its_predictor(host, null):
    assert isinstance(predictor(null), PREDICTORS["per_mac"])  # type: ignore[arg-type]
    assert isinstance(predictor(host), PREDICTORS["table"])  # type: ignore[arg-type]
    assert isinstance(predictor(replace(host, ops={})), PREDICTORS["few_shot"])  # type: ignore[arg-type]
