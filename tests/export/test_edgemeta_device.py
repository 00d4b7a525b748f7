from __future__ import annotations

import ast
import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from edgemeta.contracts import Support
from edgemeta.data.images import read_image
from edgemeta.lowering.manifest import bundle_id

BLOCK = (
    "import sys; sys.modules['torch'] = sys.modules['edgemeta'] = None; sys.argv[0] = sys.argv[1]; del sys.argv[1]; "
)
RUN = BLOCK + "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"


@pytest.fixture
def device(runtime, folder):
    return runtime.Device(folder)


@pytest.fixture
def taught(device, draw):
    device.enroll(draw(4))
    return device


def stack(images):
    return torch.from_numpy(np.stack(sum(images.values(), []))[:, None]) * np.float32(1 / 255)


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# Learning


def test_logits_and_predictions_are_torchs(taught, trained, net, draw):
    learner, slow = trained
    shots, queries = draw(4), draw(20, seed=1)
    with torch.no_grad():
        support = Support(net.body(slow, stack(shots)), torch.eye(3).repeat_interleave(4, 0))
        fast = learner.start(slow, support)
        for _ in range(learner.steps):
            fast = learner.step(slow, fast, support)
        want = learner.predict(slow, fast, net.body(slow, stack(queries))).numpy()
    flat = sum(queries.values(), [])
    np.testing.assert_allclose(taught.logits(taught.features(flat)), want, atol=1e-4, rtol=1e-4)
    names, probabilities = taught.predict(flat)
    assert names == [taught.names[i] for i in want.argmax(1)]
    np.testing.assert_allclose(probabilities, torch.softmax(torch.from_numpy(want), 1).amax(1), atol=1e-4)
    truth = [name for name, images in queries.items() for _ in images]
    assert np.mean([a == b for a, b in zip(names, truth, strict=True)]) > 0.7  # one in three by chance


def test_shots_in_parts_are_shots_at_once(device, runtime, folder, draw):
    images = draw(4)
    for name, several in images.items():
        device.enroll(several[:2], name)
    device.enroll(
        [image for several in images.values() for image in several[2:]], [n for n in images for _ in range(2)]
    )
    at_once = runtime.Device(folder)
    at_once.enroll(images)
    queries = draw(3, seed=1)["low"]
    np.testing.assert_allclose(device.probabilities(queries), at_once.probabilities(queries), atol=1e-5)
    assert device.counts == at_once.counts == {"left": 4, "right": 4, "low": 4}


def test_forgotten_class_was_never_there(taught, runtime, folder, draw):
    taught.forget("right")
    images = draw(4)
    without = runtime.Device(folder)
    without.enroll({name: images[name] for name in ("left", "low")})
    queries = images["right"]
    assert taught.names == ["left", "low"]
    np.testing.assert_allclose(taught.probabilities(queries), without.probabilities(queries), atol=1e-6)
    for name in ("left", "low"):
        taught.forget(name)
    with pytest.raises(runtime.DeviceError, match="no classes are enrolled"):
        taught.predict(queries)


def test_one_class_is_enough(device, draw):
    device.enroll(draw(1)["low"], ["low"])
    names, probabilities = device.predict(draw(1)["left"])
    assert names == ["low"] and probabilities[0] == pytest.approx(1.0)


def test_mistakes_leave_what_was_learned(taught, runtime, draw):
    before = taught.counts
    images = draw(1)["low"]
    bad = [
        lambda: taught.enroll([], []),
        lambda: taught.enroll(images, ["a", "b"]),
        lambda: taught.enroll(images, [3]),
        lambda: taught.enroll([np.array(["text"])], ["a"]),
        lambda: taught.enroll([np.full((12, 12), np.nan)], ["a"]),
        lambda: taught.enroll([np.zeros((0, 12))], ["a"]),
        lambda: taught.enroll([np.zeros((2, 2, 12, 12))], ["a"]),
        lambda: taught.forget("nothing"),
    ]
    for call in bad:
        with pytest.raises(runtime.DeviceError) as error:
            call()
        one_line(error)
    assert taught.counts == before


# Images


def test_resize_is_pillows_bilinear(runtime, generator):
    image = torch.randint(0, 256, (31, 47), generator=generator, dtype=torch.uint8).numpy()
    for height, width in ((12, 12), (40, 20), (31, 60)):
        ours = runtime.resize(image[None].astype(np.float32), (height, width))[0]
        theirs = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        assert np.abs(ours - theirs).max() < 1.01


RULE = {"scale": 1 / 255, "polarity": "as-is", "resize": "stretch", "channels": 1, "height": 12, "width": 12}


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16", "LA"])
def test_files_are_read_as_in_training(runtime, mode, tmp_path, draw):
    image = Image.fromarray(draw(1, size=24)["low"][0])
    path = tmp_path / "image.png"
    if mode == "I;16":
        Image.fromarray(np.asarray(image).astype(np.uint16) * 257).save(path)
    else:
        image.convert(mode).save(path)
    ours = runtime.preprocess(path, RULE)
    theirs = read_image(path, (1, 12, 12)) / 255.0
    assert ours.dtype == np.float32 and ours.shape == (1, 12, 12)
    assert np.abs(ours - theirs).max() < 1.6 / 255


def test_layouts_agree(runtime, draw):
    image = draw(1)["low"][0]
    colour = np.repeat(image[:, :, None], 3, 2)
    want = runtime.preprocess(image, RULE)
    for other in (
        image[None],
        image[:, :, None],
        colour,
        Image.fromarray(image),
        image / 255.0,
        image.astype(np.int64),
    ):
        np.testing.assert_allclose(runtime.preprocess(other, RULE), want, atol=1e-6)
    assert runtime.preprocess(image, {**RULE, "channels": 3}).shape == (3, 12, 12)
    np.testing.assert_array_equal(runtime.preprocess(image > 100, RULE)[0], image > 100)


def test_dark_ink_on_paper_is_turned_over(runtime, taught, draw):
    ink = {**RULE, "polarity": "ink-high"}
    image = draw(1)["low"][0]
    np.testing.assert_allclose(runtime.preprocess(255 - image, ink), runtime.preprocess(image, ink), atol=1e-6)
    np.testing.assert_allclose(runtime.preprocess(255 - image, RULE), 1 - runtime.preprocess(image, RULE), atol=1e-6)
    assert taught.predict([255 - image])[0] == taught.predict([image])[0]


# State


def test_state_comes_back(taught, runtime, folder, tmp_path, draw):
    taught.save(tmp_path / "state.npz")
    again = runtime.Device(folder)
    again.load(tmp_path / "state.npz")
    queries = draw(3, seed=2)["left"]
    np.testing.assert_array_equal(again.probabilities(queries), taught.probabilities(queries))
    again.enroll(draw(1)["low"], "new")
    assert again.names == [*taught.names, "new"]
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


def test_cut_state_is_refused_at_every_length(taught, runtime, tmp_path):
    taught.save(tmp_path / "state.npz")
    data = (tmp_path / "state.npz").read_bytes()
    before = taught.counts
    for length in range(0, len(data), max(1, len(data) // 40)):
        (tmp_path / "cut.npz").write_bytes(data[:length])
        with pytest.raises(runtime.DeviceError, match="damaged") as error:
            taught.load(tmp_path / "cut.npz")
        one_line(error)
    assert taught.counts == before


def forge(path, **changes):
    """A saved state with some of its arrays replaced."""
    with np.load(path) as arrays:
        held = dict(arrays)
    head = json.loads(held["head"].tobytes())
    head.update(changes.pop("head", {}))
    held["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    np.savez(path, **{**held, **changes})


FORGED = {
    "other bundle": ({"head": {"bundle": "0" * 64}}, "another bundle"),
    "other version": ({"head": {"version": 9}}, "another bundle or version"),
    "names": ({"head": {"names": ["a"]}}, "damaged"),
    "names of no text": ({"head": {"names": [1, 2, 3]}}, "damaged"),
    "labels": ({"labels": np.full(12, 7)}, "damaged"),
    "features": ({"features": np.zeros((12, 3), np.float32)}, "damaged"),
    "nan": ({"features": np.full((12, 8), np.nan, np.float32)}, "damaged"),
    "pickle": ({"labels": np.array([{}], dtype=object)}, "damaged"),
}


@pytest.mark.parametrize("changes, message", FORGED.values(), ids=FORGED)
def test_forged_state_is_refused(taught, runtime, tmp_path, changes, message):
    taught.save(tmp_path / "state.npz")
    forge(tmp_path / "state.npz", **changes)
    with pytest.raises(runtime.DeviceError, match=message) as error:
        taught.load(tmp_path / "state.npz")
    one_line(error)


def test_state_without_a_place_is_refused(taught, runtime, tmp_path):
    with pytest.raises(runtime.DeviceError, match="cannot write"):
        taught.save(tmp_path / "nowhere" / "state.npz")
    with pytest.raises(runtime.DeviceError, match="missing"):
        taught.load(tmp_path / "none.npz")


def test_swollen_state_is_refused(taught, runtime, tmp_path, monkeypatch):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, features=np.zeros((500, 1000), np.float32))
    (tmp_path / "bomb.npz").write_bytes(buffer.getvalue())
    monkeypatch.setattr(runtime, "MAX_FILE_BYTES", 10**5)
    with pytest.raises(runtime.DeviceError, match="too large"):
        taught.load(tmp_path / "bomb.npz")


# Bundle


def damaged(name, change):
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


DAMAGE = {
    "cut graph": (damaged("body.onnx", lambda data: data[:-9]), "not the file"),
    "flipped graph": (damaged("adapt.onnx", lambda data: data[:-1] + b"?"), "not the file"),
    "cut manifest": (damaged("manifest.json", lambda data: data[: len(data) // 2]), "damaged"),
    "list": (damaged("manifest.json", lambda data: b"[1]"), "damaged"),
    "other format": (
        damaged("manifest.json", lambda data: data.replace(b'"version": 1', b'"version": 2')),
        "version 2",
    ),
    "other scale": (damaged("manifest.json", lambda data: data.replace(b"ink-high", b"as-is")), "changed after"),
    "escape": (damaged("manifest.json", lambda data: data.replace(b"body.onnx", b"../body.onnx")), "plain file name"),
    "gone": (lambda folder: (folder / "classify.onnx").unlink(), "missing"),
    "empty": (lambda folder: (folder / "manifest.json").unlink(), "missing"),
}


@pytest.mark.parametrize("damage, message", DAMAGE.values(), ids=DAMAGE)
def test_damaged_bundle_is_refused(runtime, folder, tmp_path, damage, message):
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(runtime.DeviceError, match=message) as error:
        runtime.Device(copy)
    one_line(error)


def reidentified(change):
    """A manifest whose id follows from what it says, and yet does not fit its graphs."""

    def damage(folder):
        record = json.loads((folder / "manifest.json").read_text())
        change(record)
        record["id"] = bundle_id(record)
        (folder / "manifest.json").write_text(json.dumps(record))

    return damage


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["learner"].update(steps=10**12),
        lambda record: record["learner"].update(steps="many"),
        lambda record: record["normalisation"].pop("polarity"),
        lambda record: record["normalisation"].update(height=10**9),
        lambda record: record["normalisation"].update(scale="big"),
    ],
)
def test_manifest_that_does_not_fit_its_graphs_is_refused(runtime, folder, tmp_path, change):
    copy = shutil.copytree(folder, tmp_path / "copy")
    reidentified(change)(copy)
    with pytest.raises(runtime.DeviceError, match="does not run") as error:
        runtime.Device(copy)
    one_line(error)


def test_flipped_bytes_of_a_state_never_escape(taught, runtime, tmp_path):
    """Whatever the zip reader makes of it, a damaged state is one line or, where nothing that counts was hit, loads."""
    taught.save(tmp_path / "state.npz")
    data, rng, refused = (tmp_path / "state.npz").read_bytes(), np.random.default_rng(0), 0
    for _ in range(300):
        changed = bytearray(data)
        changed[rng.integers(len(data))] = rng.integers(256)
        (tmp_path / "flipped.npz").write_bytes(changed)
        try:
            taught.load(tmp_path / "flipped.npz")
        except runtime.DeviceError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 100


# Command line, where torch and edgemeta cannot be imported


def test_python_3_9_reads_it(folder):
    assert ast.parse((folder / "edgemeta_device.py").read_text(), feature_version=(3, 9)).body


def run(*arguments):
    """The copy of the runtime inside a bundle, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", RUN, *map(str, arguments)], capture_output=True, text=True, timeout=50)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def save_pictures(root, images):
    for name, several in images.items():
        (root / name).mkdir(parents=True)
        for i, image in enumerate(several):
            Image.fromarray(255 - image).save(root / name / f"{i}.png")
    return root


def test_the_whole_story_without_torch(folder, tmp_path, draw):
    script, state = folder / "edgemeta_device.py", tmp_path / "state.npz"
    shots = save_pictures(tmp_path / "shots", draw(4, size=24))
    (shots / "low" / "broken.png").write_bytes(b"not an image")
    enrolled = run(script, "enroll", folder, shots, "--state", state)
    assert enrolled.returncode == 0 and "12 images enrolled" in enrolled.stdout
    assert "broken.png" in enrolled.stderr and "skipped 1 of 13" in enrolled.stderr
    queries = save_pictures(tmp_path / "queries", draw(5, size=24, seed=1))
    predicted = run(script, "predict", folder, queries, "--state", state)
    assert predicted.returncode == 0 and len(predicted.stdout.splitlines()) == 15
    right, total = predicted.stderr.split(" are ")[0].split(" of ")
    assert int(total) == 15 and int(right) >= 10
    told = run(script, "info", folder)
    assert told.returncode == 0 and "learner" in told.stdout


def test_mistakes_are_one_line_and_code_2(runtime, folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    mistakes = [
        ["info", tmp_path / "nothing"],
        ["enroll", folder, tmp_path / "nothing"],
        ["enroll", folder, tmp_path / "empty", "--state", tmp_path / "s.npz"],
        ["predict", folder, tmp_path / "empty", "--state", tmp_path / "none.npz"],
    ]
    for arguments in mistakes:
        assert runtime.main(list(map(str, arguments))) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and told.count("\n") == 1
