"""The C driver as a program calls it, through ctypes; the blocks of docs/microcontroller.md run in tests/docs."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgemeta.lowering import c_check, to_c
from edgemeta.lowering.manifest import Normalisation

pytest.importorskip("emx_onnx_cgen", reason="extra `c` is not installed")
pytestmark = pytest.mark.skipif(bool(c_check.lacks(*c_check.HOST)), reason="no make or C compiler on this machine")
ROWS, WAY = 6, 3
OK, FULL, LABEL, EMPTY, STALE, FOREIGN = range(6)


class Driver:
    """The functions of a built program on numpy arrays, with a state of its own."""

    def __init__(self, library: Path, dim: int, bytes_of_state: int):
        self._c, self.dim = ctypes.CDLL(str(library)), dim
        self.state = np.zeros(bytes_of_state, np.uint8)

    def __call__(self, name, *arguments):
        return getattr(self._c, name)(*(a if isinstance(a, int) else ctypes.c_void_p(a.ctypes.data) for a in arguments))

    def classify(self, features):
        logits = np.zeros(WAY, np.float32)
        return self("em_classify", self.state, features, logits), logits

    def teach(self, features, labels):
        return [self("em_enroll", self.state, row, int(label)) for row, label in zip(features, labels, strict=True)]


@pytest.fixture(scope="module")
def built(bundles, tmp_path_factory):
    """(the library, its memory, the bundle's graphs) of Prototypical Networks."""
    case = bundles("protonet")
    graphs = {name: (case.folder / f"{name}.onnx").read_bytes() for name in ("body", "adapt", "classify")}
    shape = Normalisation(channels=1, height=12, width=12, polarity="ink-high")
    program = to_c.program(case.learner, case.slow, graphs, rows=ROWS, way=WAY, normalisation=shape, name="a test")
    folder = tmp_path_factory.mktemp("c")
    for file, text in program.files.items():
        (folder / file).write_text(text)
    parts = [folder / f"{part}.c" for part in ("edgemeta_c", "em_conv", "em_model", "em_weights")]
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared"]
    subprocess.run(["cc", *flags, *parts, "-lm", "-o", folder / "edgemeta.so"], check=True)
    return folder / "edgemeta.so", program.memory, graphs


@pytest.fixture
def driver(built, bundles):
    library, memory, _ = built
    made = Driver(library, bundles("protonet").learner.net.dim, memory.state)
    made("em_init", made.state)
    return made


@pytest.fixture
def features(driver):
    return np.random.default_rng(0).standard_normal((8, driver.dim), dtype=np.float32)


def expected(graphs, features, labels, query, way):
    adapt, classify = (onnxruntime.InferenceSession(graphs[name]) for name in ("adapt", "classify"))
    onehot = np.eye(way, dtype=np.float32)[labels]
    fast = adapt.run(None, {"features": features, "onehot": onehot, "steps": np.array(1)})
    known = {"features": query[None], **{o.name: f for o, f in zip(adapt.get_outputs(), fast, strict=True)}}
    return classify.run(None, {i.name: known[i.name] for i in classify.get_inputs()})[0][0]


def test_classes_that_were_not_taught_take_no_part(driver, features, built):
    labels = [0, 1, 1, 0]
    assert driver.teach(features[:4], labels) == [OK] * 4 and driver("em_adapt", driver.state) == OK
    status, logits = driver.classify(features[5])
    assert status == OK and logits[2] == -np.inf
    np.testing.assert_allclose(logits[:2], expected(built[2], features[:4], labels, features[5], 2), atol=1e-4)


def test_a_class_is_forgotten_and_another_added(driver, features, built):
    driver.teach(features[:6], [0, 1, 2, 0, 1, 2])
    assert driver("em_forget", driver.state, 1) == OK
    assert driver.teach(features[6:7], [1]) == [OK] and driver("em_adapt", driver.state) == OK
    order = [0, 2, 3, 5, 6]
    wanted = expected(built[2], features[order], [0, 2, 0, 2, 1], features[7], 3)
    np.testing.assert_allclose(driver.classify(features[7])[1], wanted, atol=1e-4)


def test_every_wrong_call_is_told_and_changes_nothing(driver, features):
    assert driver("em_adapt", driver.state) == EMPTY == driver.classify(features[0])[0]
    assert driver.teach(features[:2], [WAY, -1]) == [LABEL] * 2 and driver("em_forget", driver.state, WAY) == LABEL
    assert driver.teach(features[:7], [0, 1, 2, 0, 1, 2, 0]) == [OK] * 6 + [FULL]
    assert driver.classify(features[0])[0] == STALE
    assert driver("em_adapt", driver.state) == OK and driver.classify(features[0])[0] == OK


def test_a_state_is_memory_that_can_be_kept_and_another_builds_is_refused(driver, features):
    driver.teach(features[:3], [0, 1, 2])
    driver("em_adapt", driver.state)
    _, before = driver.classify(features[4])
    kept = driver.state.copy()
    driver("em_init", driver.state)
    driver.state[:] = kept
    np.testing.assert_array_equal(driver.classify(features[4])[1], before)
    driver.state[0] ^= 1
    assert driver.classify(features[4])[0] == FOREIGN == driver("em_adapt", driver.state)
    assert driver.teach(features[:1], [0]) == [FOREIGN] and driver("em_forget", driver.state, 0) == FOREIGN


@pytest.mark.parametrize("ground", [20, 200])
def test_images_are_prepared_as_the_python_runtime_does(driver, images, ground):
    pixels = np.full((12, 12), ground, np.uint8)
    pixels[3:5, 2:-2] = 255 - ground
    image = np.zeros((12, 12), np.float32)
    driver("em_prepare", pixels, image)
    rule = {"channels": 1, "height": 12, "width": 12, "scale": 1 / 255, "polarity": "ink-high"}
    np.testing.assert_allclose(image, images.preprocess(pixels, rule)[0], atol=1e-6)
