from dataclasses import replace

from edgemeta.contracts import Latency
from edgemeta.report import latencies
from edgemeta.report.drift import Band
from edgemeta.report.story import Check, Story
from edgemeta.types import Timing
from tests.report.story_example import example


def told(predicted: Latency, measured_ms: float | None, *checks: Check) -> Story:
    story = example()
    measured = None if measured_ms is None else Timing(measured_ms, 0.001, 100)
    return replace(story, winner=replace(story.winner, predicted=predicted, measured=measured), checks=checks)


def test_whole_and_body_are_told_apart():
    name = str(example().winner.arch)
    body = Check(name, "search", Latency(0.03, 0.029, 0.031), 0.0305)
    whole, own = latencies.rows(told(Latency(0.04, 0.038, 0.042), 0.041, body))
    assert (whole.predicted, whole.measured) == ("0.04 ms", "0.041 ms") and "head" in whole.name
    assert (own.predicted, own.measured) == ("0.03 ms", "0.0305 ms") and "0.029 ms to 0.031 ms" in own.interval


def test_a_body_that_was_not_timed_is_the_sum_of_its_layers():
    story = told(Latency(0.04, 0.038, 0.042), 0.041)
    _, own = latencies.rows(replace(story, layers=(("one", 0.01), ("two", 0.02), ("odd", float("nan")))))
    assert (own.predicted, own.interval, own.measured) == ("0.03 ms", "no interval", "not measured")
    assert len(latencies.rows(replace(story, layers=()))) == 1
    assert latencies.rows(Story()) == []


def test_a_measurement_outside_its_interval_is_said_and_explained():
    speed = Band(0.1, 0.97, 1.08)
    for ms, side in ((0.05, "above"), (0.03, "below"), (0.04, None)):
        story = told(Latency(0.04, 0.038, 0.042), ms)
        assert latencies.outside(story.winner) == side
        why = latencies.why(story, speed)
        assert (f"{side} its interval" in why) == (side is not None) and "from −3.0 % to +8.0 %" in why
    assert "In the course of profiling" not in latencies.why(story, None)


def test_without_a_measurement_there_is_nothing_to_explain():
    assert "nothing here is a measurement" in latencies.why(told(Latency(0.04, 0.038, 0.042), None), None)
    assert latencies.outside(told(Latency(0.04, 0.04, 0.04), 0.05).winner) is None  # one point is no interval
