from __future__ import annotations

import math

import numpy as np
import pytest

from edgemeta.latency import cover, measure
from edgemeta.latency.onnx_net import classify_onnx, to_onnx
from edgemeta.latency.table import predictor


def test_time_model_counts_its_runs_and_stops(tiny, rng):
    model = to_onnx(tiny.ops(tiny.sample(rng=rng)), batch=1).SerializeToString()
    feeds = {"x": np.ones((1, *tiny.in_shape), np.float32)}
    timing = measure.time_model(model, feeds, min_repeats=7, max_repeats=20, max_seconds=0.2)
    assert 7 <= timing.n <= 24 and timing.median_ms > 0 and timing.iqr_ms >= 0


def test_profile_holds_every_operator_and_what_it_was_measured_with(host, tiny):
    assert set(host.ops) == set(cover.operators(tiny))
    assert not host.synthetic and host.threads == host.batch == 1 and host.device.startswith("host-")
    assert {"onnxruntime", "python"} <= set(host.versions) and host.cpu and host.governor
    assert host.overhead["head_ms"] > 0
    assert 0 < host.overhead["low_ratio"] <= 1 <= host.overhead["high_ratio"]
    assert len({net.arch for net in host.nets}) == len(host.nets) > 24


def test_prediction_follows_measurement_on_its_own_networks(host, tiny):
    """Rank correlation: the machine may be busy, the order of networks stays."""
    predict = predictor(host)
    guesses = [predict.latency(tiny.ops(net.arch)).ms for net in host.nets]
    times = [net.timing.median_ms for net in host.nets]
    assert np.corrcoef(np.log(guesses), np.log(times))[0, 1] > 0.7
    assert all(math.isfinite(guess) for guess in guesses)


def test_killed_and_run_again_goes_on(tiny, tmp_path, monkeypatch):
    """Killed at the 20th visit; the second run makes the rest and no more."""
    partial, made = tmp_path / "partial.json", []
    visit = measure._visit

    def dying(net, *rest):
        if len(made) == 20:
            raise KeyboardInterrupt
        made.append(net)
        return visit(net, *rest)

    settings = dict(seed=0, nets=2, seconds=30.0, partial=partial, progress=False)
    monkeypatch.setattr(measure, "_visit", dying)
    with pytest.raises(KeyboardInterrupt):
        measure.measure_host(tiny, **settings)
    first, again = list(made), []
    monkeypatch.setattr(measure, "_visit", lambda net, *rest: again.append(net) or visit(net, *rest))
    done = measure.measure_host(tiny, **settings)
    assert len(first) == 20
    counts = {i: (first + again).count(i) for i in range(len(done.nets))}
    assert min(counts.values()) >= 2 and not done.status
    assert not set(again[: len(done.nets) - 20]) & set(first)
    monkeypatch.setattr(measure, "_visit", lambda *_: pytest.fail("a finished profile was measured again"))
    assert measure.measure_host(tiny, **settings).ops == done.ops


def test_out_of_time_still_answers_and_says_what_is_estimated(tiny):
    short = measure.measure_host(tiny, seed=1, nets=0, seconds=0.01, progress=False)
    assert set(short.ops) == set(cover.operators(tiny))
    assert any(reason.startswith("estimated") for reason in short.status.values())


def test_the_head_is_nearest_prototype():
    opened = measure.session(classify_onnx(dim=3, way=2).SerializeToString())
    total, count = np.array([[2, 0, 0], [0, 3, 0]], np.float32), np.array([[2], [1]], np.float32)
    (logits,) = opened.run(None, {"z": np.array([[1, 0, 0]], np.float32), "total": total, "count": count})
    assert logits.argmax() == 0 and logits[0] == 0 and np.isclose(logits[1], -2)
