"""The queue of a farm: who does what, how often it is tried, and what happens when devices go away."""

import threading
import time
from collections import Counter

import pytest

from edgemeta.errors import BadProfile
from edgemeta.latency.farm import Farm
from edgemeta.latency.inventory import Device
from edgemeta.latency.remote import Unreachable


def device(name: str, **settings) -> Device:
    return Device(name=name, **{"tries": 3, "pause_s": 0.01} | settings)


def test_devices_share_the_work_side_by_side():
    """Each of two jobs waits for the other to be under way: one after another they would never end."""
    both = threading.Barrier(2, timeout=10)

    def do(device, job, stop):
        both.wait()
        return job * 10

    answers = sorted(Farm([device("a"), device("b")]).run([1, 2, 3, 4], do))
    assert [(at, value) for at, _, value in answers] == [(0, 10), (1, 20), (2, 30), (3, 40)]
    assert Counter(name for _, name, _ in answers) == {"a": 2, "b": 2}


def test_a_job_with_an_owner_is_its_own():
    answers = Farm([device("a"), device("b")]).run(["x", "y"], lambda d, job, stop: d.name, owners=["b", "a"])
    assert {at: value for at, _, value in answers} == {0: "b", 1: "a"}


def test_what_fails_for_a_moment_is_tried_again():
    tried = []

    def do(device, job, stop):
        tried.append(time.monotonic())
        if len(tried) < 3:
            raise Unreachable("gone")
        return "back"

    farm = Farm([device("a", pause_s=0.05)])
    assert list(farm.run(["x"], do)) == [(0, "a", "back")] and farm.lost == {}
    first, second = tried[1] - tried[0], tried[2] - tried[1]
    assert second >= 0.1 and first >= 0.05


def test_a_device_that_stays_away_is_set_aside_and_others_take_its_job():
    met = Counter()

    def do(device, job, stop):
        met[device.name] += 1
        if device.name == "a":
            raise Unreachable("a is gone")
        while met["a"] < 3:
            time.sleep(0.005)
        return device.name

    farm = Farm([device("a"), device("b")])
    assert {name for _, name, _ in farm.run([1, 2, 3], do)} == {"b"}
    assert farm.lost == {"a": "a is gone"} and [d.name for d in farm.left] == ["b"]
    assert {name for _, name, _ in farm.run([1], do)} == {"b"} and met["a"] == 3


def test_what_no_try_can_mend_sets_aside_at_once():
    def do(device, job, stop):
        raise BadProfile(f"{device.name} has no numpy")

    farm = Farm([device("a"), device("b")])
    assert sorted(farm.run([1, 2], do)) == [(0, "", None), (1, "", None)]
    assert farm.lost == {"a": "a has no numpy", "b": "b has no numpy"}
    assert list(farm.run([1], do)) == [(0, "", None)]


def test_an_owner_that_is_lost_leaves_its_jobs_open():
    def do(device, job, stop):
        if device.name == "a":
            raise BadProfile("broken")
        return job

    answers = sorted(Farm([device("a"), device("b")]).run([1, 2], do, owners=["a", "b"]))
    assert answers == [(0, "", None), (1, "b", 2)]


def test_any_other_error_ends_the_run_and_every_thread():
    def do(device, job, stop):
        if job == 2:
            raise RuntimeError("a mistake of ours")
        assert stop.wait(10)
        raise Unreachable("ended")

    farm, before = Farm([device("a"), device("b")]), threading.active_count()
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        list(farm.run([1, 2], do))
    assert threading.active_count() == before and farm.lost == {}
