"""What the device runtime owes every learner of the registry. A new row joins by itself."""

from __future__ import annotations

import numpy as np
import pytest

from edgemeta.learners import LEARNERS
from tests.golden import answers


@pytest.fixture(scope="module", params=LEARNERS)
def case(request, bundles):
    return bundles(request.param)


@pytest.fixture
def device(case, runtime):
    return runtime.Device(case.folder)


@pytest.fixture
def check(case, device, draw):
    """That the device answers as torch does after learning from `shots`, (name, image) in their order."""
    queries = sum(draw(3, seed=1).values(), [])

    def compare(shots):
        names, want = answers(case.learner, case.slow, shots, queries)
        assert device.names == names
        got = device.logits(queries)
        assert np.abs(got - want).max() <= 1e-4 * max(1.0, np.abs(want).max())
        told, probabilities = device.predict(queries)
        soft = np.exp(want - want.max(1, keepdims=True))
        np.testing.assert_allclose(probabilities, (soft / soft.sum(1, keepdims=True)).max(1), atol=2e-4)
        assert np.mean([name == names[i] for name, i in zip(told, want.argmax(1), strict=True)]) > 0.9  # but for ties

    return compare


def test_answers_are_torchs_whatever_is_learned_and_forgotten(device, check, draw):
    drawn = draw(4)
    images = [(name, image) for name, several in drawn.items() for image in several]
    left, right, low = images[:4], images[4:8], images[8:]
    device.enroll({"left": drawn["left"][:1]})
    check(left[:1])
    device.enroll({"right": drawn["right"]})
    check(left[:1] + right)
    device.enroll([image for _, image in low[:2] + left[1:]], [name for name, _ in low[:2] + left[1:]])
    check(left[:1] + right + low[:2] + left[1:])
    device.forget("right")
    check(left[:1] + low[:2] + left[1:])
    device.enroll(drawn["right"][:2], "right")
    check(left[:1] + low[:2] + left[1:] + right[:2])


def test_state_comes_back(case, device, runtime, tmp_path, draw):
    device.enroll(draw(2))
    device.save(tmp_path / "state.npz")
    again = runtime.Device(case.folder)
    again.load(tmp_path / "state.npz")
    queries = draw(3, seed=2)["left"]
    assert again.counts == device.counts == {"left": 2, "right": 2, "low": 2}
    np.testing.assert_array_equal(again.probabilities(queries), device.probabilities(queries))
    for some in (again, device):
        some.enroll({"new": draw(2, seed=3)["low"], "left": draw(1, seed=4)["left"]})
    np.testing.assert_array_equal(again.probabilities(queries), device.probabilities(queries))
    with np.load(tmp_path / "state.npz") as arrays:
        assert arrays["examples"].dtype == (np.float32 if case.learner.on_features else np.uint8)


def test_threshold_is_the_share_of_examples_left_out(case, device, draw):
    shots = [(name, image) for name, images in draw(3).items() for image in images]
    device.enroll([image for _, image in shots], [name for name, _ in shots])
    tops = []
    for i, (_, image) in enumerate(shots):
        _, logits = answers(case.learner, case.slow, shots[:i] + shots[i + 1 :], [image])
        tops.append(logits.max())
    tops.sort()
    limit = 1e-4 * max(1.0, float(np.abs(tops).max()))
    for share, place in ((0.0, 0), (0.05, 0), (0.12, 1), (0.5, 4), (0.99, 8)):
        assert device.threshold(share) == pytest.approx(float(tops[place]), abs=limit)
    queries = [image for _, image in shots]
    names, probabilities = device.predict(queries, unknown=0.5)
    known = device.logits(queries).max(1) >= device.threshold(0.5)
    plain, same = device.predict(queries)
    assert names == [name if sure else None for name, sure in zip(plain, known, strict=True)]
    np.testing.assert_array_equal(probabilities, same)


def test_one_class_is_enough(device, draw):
    device.enroll(draw(1)["low"], "low")
    names, probabilities = device.predict(draw(1)["left"])
    assert names == ["low"] and probabilities[0] == pytest.approx(1.0)
    assert device.threshold() is None
    with pytest.warns(UserWarning, match="no class has two examples"):
        assert device.predict(draw(1)["left"], unknown=0.05)[0] == ["low"]


def test_ten_thousand_examples(case, device, runtime):
    """Drawn as the learner takes them. Those on images, and of a step for each example, adapt to a choice of 250."""
    rng, learned = np.random.default_rng(0), runtime.learning
    shape = device.example(np.zeros((12, 12), np.uint8)).shape
    drawn = rng.integers(0, 256, (10_000, *shape)).astype(np.uint8)
    examples = drawn if len(shape) == 3 else drawn.astype(np.float32)
    labels = np.minimum(np.arange(10_000) % 100, 6)  # six classes of 100, one of 9,400
    device.enroll_examples(examples, [str(label) for label in labels])
    assert list(device.counts.values()) == [100] * 6 + [9_400]
    names, probabilities = device.predict_examples(examples[:500])
    assert len(names) == 500 and np.isfinite(probabilities).all()
    if not case.learner.on_features or case.learner.steps is None:
        some = learned.balanced(labels, 250)
        assert len(some) <= 250 and np.bincount(labels[some]).tolist() == [35] * 7
        few = runtime.Device(case.folder)
        few.enroll_examples(examples[some], [str(label) for label in labels[some]])
        few_names, few_probabilities = few.predict_examples(examples[:500])
        assert few_names == names and np.array_equal(few_probabilities, probabilities)


def test_sums_are_offered_where_they_are_right(case, runtime, draw, tmp_path, one_line):
    if not case.learner.sums:
        with pytest.raises(runtime.DeviceError, match="no sums") as error:
            runtime.Device(case.folder, keep="sums")
        one_line(error)
        return
    device, queries = runtime.Device(case.folder, keep="sums"), sum(draw(3, seed=1).values(), [])
    device.enroll(draw(4))
    _, want = answers(case.learner, case.slow, [(k, image) for k, v in draw(4).items() for image in v], queries)
    np.testing.assert_allclose(device.logits(queries), want, atol=1e-4)
    device.save(tmp_path / "state.npz")
    with np.load(tmp_path / "state.npz") as arrays:
        assert "examples" not in arrays.files and arrays["counts"].tolist() == [4, 4, 4]
