from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

from edgemeta.errors import BadProfile
from edgemeta.latency import cover, machine, measure, profile, runners, visits
from edgemeta.latency.onnx_net import classify_onnx, to_onnx
from edgemeta.latency.table import predictor


def test_time_model_counts_its_runs_and_stops(tiny, rng):
    model = to_onnx(tiny.ops(tiny.sample(rng=rng)), batch=1).SerializeToString()
    feeds = {"x": np.ones((1, *tiny.in_shape), np.float32)}
    timing = measure.time_model(model, feeds, min_repeats=7, max_repeats=20, max_seconds=0.2)
    assert 7 <= timing.n <= 24 and timing.median_ms > 0 and timing.iqr_ms >= 0


def test_profile_holds_every_operator_and_what_it_was_measured_with(host, tiny):
    assert set(host.ops) == set(cover.operators(tiny))
    assert not host.synthetic and host.threads == host.batch == 1 and host.precision == "fp32"
    assert host.device == f"host-{machine.slug(machine.cpu())}" and host.cpu == machine.cpu()
    assert dict(host.versions) == measure.versions() and host.governor and host.affinity
    assert host.overhead["head_ms"] > 0
    assert 0 < host.overhead["low_ratio"] <= 1 <= host.overhead["high_ratio"]
    assert len({net.arch for net in host.nets}) == len(host.nets) > 24


def test_profile_shows_the_drift_of_the_reference(host):
    seconds, references = zip(*host.drift, strict=True)
    assert 10 < len(host.drift) <= visits.DRIFT_POINTS and list(seconds) == sorted(seconds)
    assert max(references) / min(references) >= host.overhead["drift_ratio"] * 0.9


def test_a_measured_profile_survives_its_file(host, tmp_path):
    assert profile.load(profile.save(host, tmp_path / "p.json")) == host


def test_prediction_follows_measurement_on_its_own_networks(host, tiny):
    """Rank correlation: the machine may be busy, the order of networks stays."""
    predict = predictor(host)
    guesses = [predict.latency(tiny.ops(net.arch)).ms for net in host.nets]
    times = [net.timing.median_ms for net in host.nets]
    assert np.corrcoef(np.log(guesses), np.log(times))[0, 1] > 0.7
    assert all(math.isfinite(guess) for guess in guesses)


def test_interrupted_and_run_again_goes_on(tiny, tmp_path):
    """Ctrl-C in the middle; the second run keeps what the first has timed and makes the rest."""
    kept = tmp_path / "partial.json"
    settings = "seed=0, nets=1000, seconds=3.0, progress=False"
    code = "from pathlib import Path; from edgemeta.space.presets import tiny; from edgemeta.latency import measure; "
    code += f"measure.measure_host(tiny(), {settings}, partial=Path({str(kept)!r}))"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as child:
        until = time.monotonic() + 50
        while not kept.exists() and time.monotonic() < until:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        assert child.wait(20) != 0
    first = json.loads(kept.read_text())
    assert first["visits"] and not first["finished"]
    done = measure.measure_host(tiny, seed=0, nets=1000, seconds=3.0, partial=kept, progress=False)
    again = json.loads(kept.read_text())
    assert again["visits"][: len(first["visits"])] == first["visits"] and again["finished"]
    assert len(again["visits"]) > len(first["visits"]) and not done.status


def test_out_of_time_still_answers_and_says_what_is_estimated(tiny):
    short = measure.measure_host(tiny, seed=1, nets=0, seconds=0.01, progress=False)
    assert set(short.ops) == set(cover.operators(tiny))
    assert any(reason.startswith("estimated") for reason in short.status.values())


def test_few_networks_make_a_profile_without_operators(tiny, rng, tmp_path):
    archs = [tiny.sample(rng=rng) for _ in range(4)]
    few = measure.measure_nets(tiny, archs, seed=0, threads=2, precision="int8", progress=False)
    assert not few.ops and few.device.endswith("-2t-int8") and (few.threads, few.precision) == (2, "int8")
    assert [net.arch for net in few.nets] == archs and all(net.timing.n >= 8 for net in few.nets)
    assert all(net.ops == tiny.ops(net.arch) for net in few.nets)
    assert profile.load(profile.save(few, tmp_path / "few.json")) == few


def test_no_network_at_all_is_refused(tiny):
    with pytest.raises(BadProfile, match="at least one"):
        measure.measure_nets(tiny, [], seed=0, progress=False)


def test_timings_beyond_belief_are_refused_and_not_gone_on_from(tiny, rng, tmp_path, record):
    """A file that is refused must not be found again by the next call."""
    kept = tmp_path / "partial.json"

    def foreign(kit, out, *, progress):
        out.write_text(json.dumps(record | {"kit": kit.id, "visits": [[0, 1.0, 0, 1.0, 0], [0, 9.0, 0, 1.0, 1]]}))
        return out

    with pytest.raises(BadProfile, match="took 1 ms and 9 ms"):
        measure.measure(tiny, [tiny.sample(rng=rng)], run=foreign, seed=0, partial=kept, progress=False)
    assert not kept.exists()


@pytest.mark.parametrize(
    ("runtime", "threads", "precision", "name"),
    [
        ("onnxruntime", 1, "fp32", "board-x"),
        ("onnxruntime", 4, "fp32", "board-x-4t"),
        ("onnxruntime", 1, "int8", "board-x-int8"),
        ("onnxruntime-web", 1, "fp32", "board-x-wasm"),
    ],
)
def test_a_device_is_named_after_what_tells_its_settings_apart(
    tiny, kit, record, tmp_path, runtime, threads, precision, name
):
    from edgemeta.latency import kit as kits

    made = kits.write(tmp_path, tiny, kit.archs[:2], seed=0, threads=threads, precision=precision)
    some = [row for row in record["visits"] if row[0] < 2]
    about = {"cpu": "Board X", "runtime": runtime, "kit": made.id, "visits": some}
    timings = visits.Timings.model_validate_json(json.dumps(record | about))
    assert measure.profile_from(made, timings).device == name


def test_a_run_that_was_cut_off_is_doubted(kit, record):
    cut = visits.Timings.model_validate_json(json.dumps(record | {"head_ms": None, "finished": False}))
    made = measure.profile_from(kit, cut)
    assert "head_ms" not in made.overhead and any("cut off" in doubt for doubt in made.doubts)


def test_predictions_that_are_far_off_are_doubted(kit, record):
    """Networks that take what no sum of operators explains: the interval is wide, and said to be."""
    odd = [[net, median * (3.0 if net % 2 else 1.0), *rest] for net, median, *rest in record["visits"]]
    made = measure.profile_from(kit, visits.Timings.model_validate_json(json.dumps(record | {"visits": odd})))
    assert made.overhead["high_ratio"] > measure.DOUBT_RATIO
    assert any(f"from {len(made.nets)} networks" in doubt for doubt in made.doubts)


def test_a_runner_is_told_what_it_needs_to_know(tiny, rng, tmp_path):
    """Any callable with a runner's signature will do: over_ssh with its host filled in is one."""
    run = partial(runners.local, seconds=0.2)
    made = measure.measure(tiny, [tiny.sample(rng=rng)], run=run, seed=0, prefix="mine-", progress=False)
    assert made.device.startswith("mine-") and len(made.nets) == 1


def test_the_head_is_nearest_prototype():
    opened = measure.session(classify_onnx(dim=3, way=2).SerializeToString())
    total, count = np.array([[2, 0, 0], [0, 3, 0]], np.float32), np.array([[2], [1]], np.float32)
    (logits,) = opened.run(None, {"z": np.array([[1, 0, 0]], np.float32), "total": total, "count": count})
    assert logits.argmax() == 0 and logits[0] == 0 and np.isclose(logits[1], -2)
