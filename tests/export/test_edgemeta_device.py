"""Learning and predicting, beyond what `test_every_learner` asks."""

from __future__ import annotations

import importlib
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(params=("examples", "sums"))
def device(request, runtime, folder):
    return runtime.Device(folder, keep=request.param)


@pytest.fixture
def taught(device, draw):
    device.enroll(draw(4))
    return device


def test_new_images_are_named(taught, draw):
    queries = draw(20, seed=1)
    names, probabilities = taught.predict(sum(queries.values(), []))
    truth = [name for name, images in queries.items() for _ in images]
    assert np.mean([a == b for a, b in zip(names, truth, strict=True)]) > 0.9 and probabilities.min() > 1 / 3
    assert taught.predict([255 - queries["low"][0]])[0] == taught.predict([queries["low"][0]])[0]  # ink on paper
    names, probabilities = taught.predict([])
    assert names == [] and probabilities.shape == (0,)


def test_a_class_that_was_not_taught_is_unknown_and_others_mostly_are_not(taught, draw):
    queries = draw(30, seed=3)
    assert taught.predict(queries["low"], unknown=0.05)[0].count("low") >= 24
    taught.forget("low")
    assert taught.predict(queries["low"], unknown=0.05)[0].count(None) >= 27
    names, _ = taught.predict(queries["left"] + queries["right"], unknown=0.05)
    assert names.count(None) <= 0.25 * len(names)
    assert None not in taught.predict(queries["low"])[0]


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_unknown_is_a_share(taught, runtime, draw, share, one_line):
    with pytest.raises(runtime.DeviceError, match="no share") as error:
        taught.predict(draw(1)["low"], unknown=share)
    one_line(error)


def test_mistakes_leave_what_was_learned(taught, runtime, draw, one_line):
    before, images = taught.probabilities(draw(1)["low"]), draw(1)["low"]
    bad = [
        lambda: taught.enroll([], []),
        lambda: taught.enroll({}),
        lambda: taught.enroll({"low": images, "new": []}),
        lambda: taught.enroll(images, ["a", "b"]),
        lambda: taught.enroll(images, [3]),
        lambda: taught.enroll(images, ""),
        lambda: taught.enroll([*images, np.full((12, 12), np.nan)], "a"),
        lambda: taught.enroll(["nowhere.png"], "a"),
        lambda: taught.forget("nothing"),
    ]
    for call in bad:
        with pytest.raises(runtime.DeviceError) as error:
            call()
        one_line(error)
    assert taught.counts == {"left": 4, "right": 4, "low": 4}
    np.testing.assert_array_equal(taught.probabilities(draw(1)["low"]), before)


def test_more_classes_than_a_learner_tells_apart(bundles, runtime, draw, one_line):
    """A memory has room for 32."""
    device = runtime.Device(bundles("mann").folder)
    image = draw(1)["low"][0]
    device.enroll([image] * 32, [str(i) for i in range(32)])
    with pytest.raises(runtime.DeviceError, match="adapt.onnx fails on .*33") as error:
        device.enroll([image], "one more")
    one_line(error)
    assert len(device.names) == 32 and len(device.predict([image])[0]) == 1


def test_numbers_that_no_network_survives_are_refused(bundles, runtime, draw, one_line):
    device = runtime.Device(bundles("maml").folder)
    device.enroll(draw(2))
    with pytest.raises(runtime.DeviceError, match="no finite numbers") as error:
        device.enroll([np.full((12, 12), 1e38)], "low")
    one_line(error)
    assert device.counts == {"left": 2, "right": 2, "low": 2}


def test_more_than_a_state_holds_is_refused(runtime, folder, draw, monkeypatch, one_line):
    device = runtime.Device(folder)
    device.enroll(draw(2))
    monkeypatch.setattr(runtime.learning, "MOST_STATE_BYTES", 800)
    with pytest.raises(runtime.DeviceError, match="12 examples are too many, a state holds 11") as error:
        device.enroll(draw(2, seed=1))
    one_line(error)
    assert device.counts == {"left": 2, "right": 2, "low": 2}


def test_8_bits_and_floats_are_kept_side_by_side(bundles, runtime, draw, tmp_path):
    device, image = runtime.Device(bundles("maml").folder), draw(1)["low"][0]
    device.enroll(draw(2))
    before = device.probabilities([image])
    device.enroll([image / 255.0], "more")
    device.forget("more")
    np.testing.assert_array_equal(device.probabilities([image]), before)
    device.save(tmp_path / "state.npz")
    with np.load(tmp_path / "state.npz") as arrays:
        assert arrays["examples"].dtype == np.float32 and arrays["examples"].max() <= 1.0


def test_sums_are_of_a_size_whatever_is_learned(runtime, folder, draw, tmp_path):
    device, sizes = runtime.Device(folder, keep="sums"), []
    for shots in (30, 60, 10):
        device.enroll(draw(shots, seed=shots))
        device.save(tmp_path / "state.npz")
        sizes.append((tmp_path / "state.npz").stat().st_size)
    assert sizes[1] == sizes[2] < 4000 and device.counts == {"left": 100, "right": 100, "low": 100}


def test_examples_become_sums_and_stay_so(runtime, folder, draw, tmp_path):
    device, sums, queries = runtime.Device(folder), runtime.Device(folder, keep="sums"), draw(3, seed=1)["low"]
    device.enroll(draw(4))
    device.save(tmp_path / "state.npz")
    sums.load(tmp_path / "state.npz")
    assert (device.keep, sums.keep) == ("examples", "sums")
    np.testing.assert_allclose(sums.logits(queries), device.logits(queries), atol=1e-4)
    sums.save(tmp_path / "state.npz")
    device.load(tmp_path / "state.npz")
    assert device.keep == "sums" and device.counts == {"left": 4, "right": 4, "low": 4}
    np.testing.assert_array_equal(sums.logits(queries), device.logits(queries))
    assert device.threshold() == sums.threshold()


CLASSES = ("left", "right", "low")
STEPS = st.one_of(
    st.tuples(st.just("enroll"), st.sampled_from(CLASSES), st.lists(st.integers(0, 5), min_size=1, max_size=3)),
    st.tuples(st.just("forget"), st.sampled_from(CLASSES), st.just([])),
)


@settings(max_examples=30)
@given(keep=st.sampled_from(["examples", "sums"]), steps=st.lists(STEPS, min_size=1, max_size=8))
def test_any_life_ends_where_learning_at_once_does(runtime, folder, draw, keep, steps):
    drawn, device, held = draw(6), runtime.Device(folder, keep=keep), []
    for what, name, which in steps:
        if what == "enroll":
            device.enroll([drawn[name][i] for i in which], name)
            held += [(name, i) for i in which]
        elif name in device.names:
            device.forget(name)
            held = [(own, i) for own, i in held if own != name]
        else:
            with pytest.raises(runtime.DeviceError, match="no class"):
                device.forget(name)
    if not held:
        with pytest.raises(runtime.DeviceError, match="no classes are enrolled"):
            device.predict(drawn["low"])
        return
    fresh = runtime.Device(folder)
    fresh.enroll([drawn[name][i] for name, i in held], [name for name, _ in held])
    assert device.names == fresh.names and device.counts == fresh.counts
    queries = sum(draw(2, seed=1).values(), [])
    np.testing.assert_allclose(device.logits(queries), fresh.logits(queries), atol=1e-4)


@given(labels=st.lists(st.integers(0, 5), max_size=60), most=st.integers(1, 70))
def test_a_choice_is_balanced(labels, most):
    array = np.array(labels, np.int64)
    picked = importlib.import_module("edgemeta_learned").balanced(array, most)
    assert picked.tolist() == sorted(set(picked.tolist())) and len(picked) <= max(most, len(set(labels)))
    sizes, taken = np.bincount(array, minlength=6), np.bincount(array[picked], minlength=6)
    assert ((taken > 0) == (sizes > 0)).all()
    cut = taken < sizes
    if cut.any():  # no class could have one more
        assert len(set(taken[cut])) == 1 and taken.max() == taken[cut][0]
        assert np.minimum(sizes, taken.max() + 1).sum() > most


@pytest.mark.parametrize("keep", ["examples", "sums"])
def test_predictions_see_the_old_or_the_new(runtime, folder, draw, keep):
    """Two threads ask while a third teaches a class and forgets it: only two sets of answers are ever given."""
    device, queries, shots = runtime.Device(folder, keep=keep), draw(2, seed=1)["low"], draw(3)
    low = shots.pop("low")
    device.enroll(shots)
    wanted = []
    for change in (lambda: None, lambda: device.enroll(low, "low")):
        change()
        names, probabilities = device.predict(queries, unknown=0.2)
        wanted.append((names, probabilities.tolist()))
    seen, done = [], threading.Event()

    def ask():
        while not done.is_set():
            names, probabilities = device.predict(queries, unknown=0.2)
            seen.append((names, probabilities.tolist()))

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    until = time.monotonic() + 40  # on a busy machine the askers may hardly get a turn
    while time.monotonic() < until and not (len(seen) > 20 and all(answer in seen for answer in wanted)):
        device.forget("low")
        device.enroll(low, "low")
    done.set()
    for asker in askers:
        asker.join()
    assert len(seen) > 20 and all(answer in wanted for answer in seen)
    assert wanted[0] in seen and wanted[1] in seen
