"""The benchmark of first proposals, in small."""

import first_proposal as bench


def test_a_first_proposal_is_under_a_cap_that_few_meet():
    cap_ms = bench._cap_ms(0.02)
    assert 0 < bench._first("random", cap_ms, seed=0) < 60


def test_memory_and_time_are_told_of_as_many_proposals(monkeypatch):
    peaks = iter([100.0, 130.0])
    monkeypatch.setattr(bench, "_peak_mib", lambda: next(peaks))
    grown, each_ms = bench._grown("evolution", 1.0, 20)
    assert grown == 30.0 and each_ms > 0
