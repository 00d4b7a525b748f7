from __future__ import annotations

import time

from edgemeta.latency.visits import MAX_PASSES, PASSES, Visit, keep, order, per_net, resume


def _run(count: int, seed: int, medians) -> list[Visit]:
    visits: list[Visit] = []
    for net in order(count, visits, seed=seed):
        visits.append(Visit(net, medians(net, len(visits)), 0.0, 1.0))
    return visits


def test_every_network_is_visited_at_two_moments():
    nets = [visit.net for visit in _run(9, 0, lambda net, _: 1.0)]
    assert sorted(nets[:9]) == sorted(nets[9:]) == list(range(9)) and len(nets) == 9 * PASSES


def test_only_disagreeing_networks_are_visited_again_and_not_for_ever():
    visits = _run(5, 0, lambda net, turn: 1.0 + (net == 2) * turn)
    assert [visit.net for visit in visits[10:]] == [2] * (MAX_PASSES - PASSES)


def test_order_goes_on_where_it_was_cut():
    whole = _run(7, 3, lambda net, _: 1.0)
    for cut in range(len(whole)):
        visits = list(whole[:cut])
        for net in order(7, visits, seed=3):
            visits.append(Visit(net, 1.0, 0.0, 1.0))
        assert visits == whole


def test_drift_of_the_machine_cancels():
    """Twice as slow at the second moment, network and reference alike: the same network."""
    timings = per_net([Visit(0, 3.0, 0.1, 1.0), Visit(0, 6.0, 0.1, 2.0), Visit(1, 4.0, 0.1, 1.0)])
    assert timings[0].median_ms == 3.0 and timings[0].n == 2 and timings[1].median_ms == 4.0


def test_partial_file_is_for_the_same_run_and_the_same_hour(tmp_path, monkeypatch):
    path, visits = tmp_path / "p.json", [Visit(0, 1.5, 0.1, 1.0)]
    keep(path, {"seed": 1}, visits, 2.5)
    assert resume(path, {"seed": 1}) == (visits, 2.5)
    assert resume(path, {"seed": 2}) == ([], 0.0)
    later = time.time() + 4000
    monkeypatch.setattr(time, "time", lambda: later)
    assert resume(path, {"seed": 1}) == ([], 0.0)


def test_a_broken_partial_file_is_measured_again(tmp_path):
    path = tmp_path / "p.json"
    for text in ("", "{", "[]", '{"seed": 1}', '{"seed": 1, "saved_at": "x"}', "\x00"):
        path.write_text(text)
        assert resume(path, {"seed": 1}) == ([], 0.0)
    assert resume(tmp_path / "absent.json", {}) == resume(None, {}) == ([], 0.0)
