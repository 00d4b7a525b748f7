"""Latencies of chosen networks: those left out of one go are timed again, and carried to the speed of the first."""

from types import SimpleNamespace

import _timed
import pytest


def measured(goes, monkeypatch):
    """Each go: what is timed, as network -> ms, and the drift."""
    asked, left = [], iter(goes)

    def measure_nets(space, archs, *, seed, **how):
        asked.append(list(archs))
        ms, drift = next(left)
        nets = [SimpleNamespace(arch=arch, timing=SimpleNamespace(median_ms=ms[arch])) for arch in archs if arch in ms]
        return SimpleNamespace(nets=nets, drift=[(0.0, one) for one in drift])

    monkeypatch.setattr(_timed.measure, "measure_nets", measure_nets)
    return asked


def test_what_was_left_out_is_timed_again_at_the_speed_of_the_first_go(monkeypatch):
    asked = measured([({"a": 1.0}, [2.0, 2.0, 9.0]), ({"b": 6.0}, [4.0])], monkeypatch)
    found = _timed.timed(None, ["b", "a"], seed=0)
    assert found.ms == {"a": 1.0, "b": 3.0} and found.reference_ms == 2.0
    assert asked == [["a", "b"], ["b"]]


def test_what_cannot_be_timed_ends_the_benchmark(monkeypatch):
    measured([({"a": 1.0}, [2.0])] * _timed.GOES, monkeypatch)
    with pytest.raises(SystemExit, match="1 of 2 networks have no timing after 4 goes; raise --seconds"):
        _timed.timed(None, ["a", "b"], seed=0)
