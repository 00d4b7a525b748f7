from __future__ import annotations

import itertools
import math
from dataclasses import replace
from random import Random

import pytest

from edgemeta.errors import BadProfile
from edgemeta.latency import cover
from edgemeta.latency.table import PREDICTORS, predictor
from edgemeta.latency.unseen import FewShot
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
    slack = 0.1 if isinstance(predict, FewShot) else 0.0  # counts of operators may weigh against what devices take
    assert all(later >= (1 - slack) * earlier for earlier, later in itertools.pairwise(partial))
    assert partial[-1] > partial[0]


def test_additive_is_the_same_prediction(predict, tiny):
    """From whole networks: their terms, finished, are `latency`."""
    networks = [tiny.ops(tiny.sample(rng=Random(seed))) for seed in range(40)]
    laid = predict.additive(tiny)
    found = laid.latency_ms(laid.sums(networks))
    assert found == pytest.approx([predict.latency(ops).ms for ops in networks], rel=1e-5)


def test_additive_terms_add_up(predict, tiny):
    """Those of a network are those of its first operators and of its last."""
    stages = [{"kind": "sep", "depth": 2}, {"kind": "conv", "depth": 2}]
    ops = tiny.ops(tiny.arch(stages))  # a chain
    laid, cut = predict.additive(tiny), 3
    rest = [replace(op, inputs=tuple(j - cut for j in op.inputs)) for op in ops[cut:]]
    whole, head, tail = laid.sums([ops, ops[:cut], rest])
    assert head + tail == pytest.approx(whole, rel=1e-4, abs=1e-6)


def test_predictors_tell_the_head_the_energy_and_the_precision(predict, host, null):
    assert predict.head_ms >= 0 and predict.precision == "fp32"
    assert predict.per_ms_mj is None or predict.per_ms_mj > 0
    told = {"head_ms": 0.5, "per_ms_mj": 3.0}
    for known in (host, null, replace(host, ops={})):
        made = predictor(replace(known, overhead={**known.overhead, **told}, precision="int8"))
        assert (made.head_ms, made.per_ms_mj, made.precision) == (0.5, 3.0, "int8")


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
