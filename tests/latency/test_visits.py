from __future__ import annotations

import json

import pytest

from edgemeta.errors import BadProfile
from edgemeta.latency import visits
from edgemeta.latency.visits import Visit


@pytest.fixture
def refused(kit, tmp_path):
    """The one line that a changed file is refused with."""

    def read(text: str | bytes) -> str:
        path = tmp_path / "timings.json"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(BadProfile) as error:
            visits.read(path, kit)
        assert "\n" not in str(error.value) and str(path) in str(error.value)
        return str(error.value)

    return read


def run(*medians, net=0, reference=1.0) -> list[Visit]:
    return [Visit(net, ms, 0.0, reference, float(i)) for i, ms in enumerate(medians)]


def test_a_real_run_is_read_whole(kit, timed, record):
    timings = visits.read(timed, kit)
    assert len(timings.visits) == len(record["visits"]) >= 2 * len(kit.archs)
    assert timings.finished and timings.head_ms > 0


def test_drift_of_the_machine_cancels():
    """Twice as slow at the second moment, network and reference alike: the same network."""
    seen = [Visit(0, 3.0, 0.1, 1.0, 0.0), Visit(0, 6.0, 0.1, 2.0, 1.0), Visit(1, 4.0, 0.1, 1.0, 2.0)]
    timings = visits.per_net(seen)
    assert timings[0].median_ms == 3.0 and timings[0].n == 2 and timings[1].median_ms == 4.0


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"visits": []}', "\x00", b"\xff\xfe", "[" * 10**5])
def test_what_is_not_json_of_a_runner_is_refused(refused, text):
    assert "timings" in refused(text)


def test_a_file_cut_off_anywhere_is_refused(refused, timed):
    text = timed.read_text()
    for end in range(0, len(text) - 1, len(text) // 7):
        assert "cut off" in refused(text[:end])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(kit="0" * 64), "another kit"),
        (dict(format=2), "format 2"),
        (dict(visits=[]), "no visit"),
        (dict(visits=[[0, -1.0, 0.0, 1.0, 0.0]]), "visits.0"),
        (dict(visits=[[0, 0.0, 0.0, 1.0, 0.0]]), "visits.0"),
        (dict(visits=[[0, float("nan"), 0.0, 1.0, 0.0]]), "visits.0"),
        (dict(visits=[[0, 1.0, 0.0, 0.0, 0.0]]), "visits.0"),
        (dict(visits=[[0, 1.0]]), "visits.0"),
        (dict(visits=[["0", 1.0, 0.0, 1.0, 0.0]]), "visits.0"),
        (dict(visits=[[9999, 1.0, 0.0, 1.0, 0.0]]), "network 9999"),
        (dict(visits=[[net, 2.0, 0.0, 1.0, 0.0] for net in range(5)]), "all 5 are 2 ms"),
        (dict(visits=[[0, 1.0, 0.0, 1.0, 0.0], [0, 4.0, 0.0, 1.0, 0.0]]), "took 1 ms and 4 ms"),
        (dict(visits=[[n, 1.0 + n, 0.0, 9.0 if n % 2 else 1.0, 0.0] for n in range(20)]), "9.0 times as long"),
        (dict(head_ms=-1.0), "head_ms"),
        (dict(measured_on="yesterday"), "measured_on"),
        (dict(cpu=None), "cpu"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(refused, record, change, says):
    assert says in refused(json.dumps(record | change))


def test_the_network_that_contradicts_itself_is_named(refused, record, kit):
    twice = [[3, 1.0, 0.0, 1.0, 0.0], [3, 3.1, 0.0, 1.0, 1.0]]
    assert f"network 3 ({kit.archs[3]})" in refused(json.dumps(record | {"visits": twice}))


def test_a_key_that_stands_twice_is_refused(refused, timed):
    assert "'format' twice" in refused(timed.read_text().replace("{", '{"format": 1, ', 1))


def test_an_absent_or_endless_file_is_refused(kit, tmp_path):
    with pytest.raises(BadProfile, match="cannot read"):
        visits.read(tmp_path / "absent.json", kit)
    with open(tmp_path / "long.json", "wb") as file:
        file.truncate(visits.MAX_BYTES + 1)
    with pytest.raises(BadProfile, match="too large"):
        visits.read(tmp_path / "long.json", kit)


def test_one_glitch_among_many_is_left_out_and_doubted(kit, record, tmp_path):
    """A third timing settles it; without one, a network in a hundred is left out by name."""
    many = [visit for net in range(1, 200) for visit in run(1.0, 1.01, net=net)]
    assert visits.contradictory(many + run(1.0, 5.0, 1.02)) == {}
    glitch = many + run(1.0, 5.0)
    assert list(visits.contradictory(glitch)) == [0] and 0 not in visits.per_net(glitch)
    timings = visits.Timings.model_validate_json(json.dumps(record | {"visits": glitch, "load": None}))
    assert any("left out" in doubt for doubt in visits.doubts(timings))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(load=1.5), "1.5 cores busy"),
        (dict(governor="ondemand"), "ondemand"),
        (dict(visits=[[0, 2.0, 0.0, 1.0, float(i)] for i in range(20)]), "whole milliseconds"),
        (dict(governor="performance+powersave"), "powersave"),
        (dict(visits=[[0, 1.5, 0.0, 1.0 + (i > 15) / 4, float(i)] for i in range(20)]), "+25% at the end"),
        (dict(visits=[[0, 1.5, 0.0, 1.0 + i % 2 / 2, float(i)] for i in range(15)]), "spreads over"),
    ],
)
def test_what_speaks_against_timings_is_said(record, change, says):
    quiet = {
        "load": 0.0,
        "governor": "performance",
        "visits": [[0, 1.5 + i % 3 / 100, 0.0, 1.0, float(i)] for i in range(20)],
    }
    assert visits.doubts(visits.Timings.model_validate_json(json.dumps(record | quiet))) == ()
    (said,) = visits.doubts(visits.Timings.model_validate_json(json.dumps(record | quiet | change)))
    assert says in said


def test_drift_is_in_time_order_and_thinned():
    seen = [Visit(0, 1.0, 0.0, 1.0 + at, float(at)) for at in range(1000)]
    points = visits.drift(list(reversed(seen)))
    assert len(points) == visits.DRIFT_POINTS and list(points) == sorted(points)
    assert points[0] == (2.0, 3.0) and visits.drift(seen[:1]) == ((0.0, 1.0),)
    assert visits.drift_ratio(run(1.0, 1.0)) == 1.0


def test_slow_moments_are_told_by_the_reference():
    calm = [Visit(0, 1.0, 0.0, 1.0, float(at)) for at in range(80)]
    assert visits.slow_ratio(calm) == 1.0
    assert visits.slow_ratio([*calm, *run(*[1.0] * 20, reference=1.3)]) == 1.3
