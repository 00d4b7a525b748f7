"""Bundles and states that are damaged, forged, fought over or cut short."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from edgemeta.lowering.manifest import bundle_id

KINDS = ("features", "images", "sums")


@pytest.fixture(scope="module")
def files(runtime):
    return importlib.import_module("edgemeta_files")


@pytest.fixture
def device(runtime, folder):
    return runtime.Device(folder)


def make(runtime, bundles, kind):
    name = "maml" if kind == "images" else "protonet"
    return runtime.Device(bundles(name).folder, keep="sums" if kind == "sums" else "examples")


@pytest.fixture(params=KINDS)
def taught(request, runtime, bundles, draw):
    device = make(runtime, bundles, request.param)
    device.enroll(draw(4))
    return device


@pytest.fixture
def state(taught, tmp_path):
    taught.save(tmp_path / "state.npz")
    return tmp_path / "state.npz"


# Bundles


def damaged(name, change):
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def linked(folder):
    (folder / "body.onnx").rename(folder.parent / "elsewhere.onnx")
    (folder / "body.onnx").symlink_to(folder.parent / "elsewhere.onnx")


DAMAGE = {
    "cut graph": (damaged("body.onnx", lambda data: data[:-9]), "not the file"),
    "changed byte": (damaged("adapt.onnx", lambda data: data[:-1] + bytes([data[-1] ^ 1])), "not the file"),
    "grown graph": (damaged("adapt.onnx", lambda data: data * 9), "larger than"),
    "cut manifest": (damaged("manifest.json", lambda data: data[: len(data) // 2]), "damaged"),
    "huge manifest": (damaged("manifest.json", lambda data: b" " * (2**20 + 1)), "larger than"),
    "deep manifest": (damaged("manifest.json", lambda data: b"[" * 200_000), "damaged"),
    "endless size": (
        damaged("manifest.json", lambda data: data.replace(b'"bytes": ', b'"bytes": -1e999, "was": ')),
        "damaged",
    ),
    "list": (damaged("manifest.json", lambda data: b"[1]"), "damaged"),
    "newer format": (
        damaged("manifest.json", lambda data: data.replace(b'"version": 2', b'"version": 3')),
        "bundle of version 3, this runtime reads 2; run it with the edgemeta_device.py",
    ),
    "older format": (
        damaged("manifest.json", lambda data: data.replace(b'"version": 2', b'"version": 1')),
        "bundle of version 1",
    ),
    "something else": (damaged("manifest.json", lambda data: data.replace(b"edgemeta-bundle", b"zip")), "damaged"),
    "other scale": (damaged("manifest.json", lambda data: data.replace(b"ink-high", b"as-is")), "changed after"),
    "escape": (damaged("manifest.json", lambda data: data.replace(b"body.onnx", b"../body.onnx")), "plain file name"),
    "escape on Windows": (
        damaged("manifest.json", lambda data: data.replace(b"body.onnx", b"..\\\\body.onnx")),
        "plain file name",
    ),
    "absolute": (damaged("manifest.json", lambda data: data.replace(b"body.onnx", b"/body.onnx")), "plain file name"),
    "link": (linked, "not a plain file"),
    "gone": (lambda folder: (folder / "classify.onnx").unlink(), "missing"),
    "empty": (lambda folder: (folder / "manifest.json").unlink(), "missing"),
}


@pytest.mark.parametrize("damage, message", DAMAGE.values(), ids=DAMAGE)
def test_damaged_bundle_is_refused(runtime, folder, tmp_path, damage, message, one_line, capsys):
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(runtime.DeviceError, match=message) as error:
        runtime.Device(copy)
    one_line(error)
    assert runtime.main(["info", str(copy)]) == 2
    assert capsys.readouterr().err == f"error: {error.value}\n"


UNFIT = {
    "steps": lambda record: record["learner"].update(steps=10**12),
    "no steps": lambda record: record["learner"].update(steps="many"),
    "sums of no classes": lambda record: record["learner"].pop("sums"),
    "images": lambda record: record["learner"].update(on="images"),
    "rule": lambda record: record["normalisation"].pop("polarity"),
    "size": lambda record: record["normalisation"].update(height=10**9),
    "scale": lambda record: record["normalisation"].update(scale="big"),
}


@pytest.mark.parametrize("change", UNFIT.values(), ids=UNFIT)
def test_manifest_that_does_not_fit_its_graphs_is_refused(runtime, folder, tmp_path, change, one_line):
    """Its id follows from what it says, and yet."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    record = json.loads((copy / "manifest.json").read_text())
    change(record)
    record["id"] = bundle_id(record)
    (copy / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(runtime.DeviceError, match="does not run|changed after") as error:
        runtime.Device(copy)
    one_line(error)


# States


def test_cut_state_is_refused_at_every_length(taught, state, runtime, one_line):
    data, before = state.read_bytes(), taught.counts
    for length in range(0, len(data), max(1, len(data) // 40)):
        state.write_bytes(data[:length])
        with pytest.raises(runtime.DeviceError, match="damaged") as error:
            taught.load(state)
        one_line(error)
    assert taught.counts == before


def test_flipped_bytes_of_a_state_never_escape(taught, state, runtime):
    """Whatever the zip reader makes of it, a damaged state is one line or, where nothing that counts was hit, loads."""
    data, rng, refused = state.read_bytes(), np.random.default_rng(0), 0
    for _ in range(200):
        changed = bytearray(data)
        changed[rng.integers(len(data))] ^= rng.integers(1, 256)
        state.write_bytes(changed)
        try:
            taught.load(state)
        except runtime.DeviceError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 60


def forge(path, head=None, **changes):
    """A saved state with some of its arrays replaced."""
    with np.load(path) as arrays:
        held = dict(arrays)
    told = json.loads(held["head"].tobytes()) | (head or {})
    held["head"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    np.savez(path, **{**held, **changes})


ANY = {
    "other bundle": ({"head": {"bundle": "0" * 64}}, "another bundle"),
    "newer version": ({"head": {"version": 3}}, "state of version 3, this runtime reads 2"),
    "names": ({"head": {"names": ["a"]}}, "damaged"),
    "names of no text": ({"head": {"names": [1, 2, 3]}}, "damaged"),
    "one name twice": ({"head": {"names": ["a", "b", "a"]}}, "damaged"),
    "no list of names": ({"head": {"names": "abc"}}, "damaged"),
    "kept otherwise": ({"head": {"keep": "nothing"}}, "damaged"),
    "labels": ({"labels": np.full(12, 7)}, "damaged"),
    "negative labels": ({"labels": np.full(12, -1)}, "damaged"),
    "pickle": ({"labels": np.array([{}], dtype=object)}, "damaged"),
}
OF_EXAMPLES = {
    "sums": ({"head": {"keep": "sums"}}, "damaged"),
    "shape": ({"examples": np.zeros((12, 3), np.float32)}, "damaged"),
    "type": ({"examples": np.zeros((12, 18))}, "damaged"),
    "bytes": ({"examples": np.zeros((12, 18), np.uint8)}, "damaged"),
    "NaN": ({"examples": np.full((12, 18), np.nan, np.float32)}, "damaged"),
    "a class without examples": ({"labels": np.zeros(12, np.int64)}, "damaged"),
}
OF_SUMS = {
    "examples": ({"head": {"keep": "examples"}}, "damaged"),
    "counts": ({"counts": np.zeros(3, np.int64)}, "damaged"),
    "more counts": ({"counts": np.ones(4, np.int64)}, "damaged"),
    "scores": ({"scores": np.zeros(3, np.float32)}, "damaged"),
    "NaN": ({"fast.total": np.full((3, 18), np.nan, np.float32)}, "damaged"),
    "shape": ({"fast.total": np.zeros((3, 17), np.float32)}, "damaged"),
    "fewer": ({"fast.count": np.zeros(2, np.float32)}, "damaged"),
}
FORGED = [(kind, name, *row) for kind in KINDS for name, row in ANY.items()]
FORGED += [("features", name, *row) for name, row in OF_EXAMPLES.items()]
FORGED += [("sums", name, *row) for name, row in OF_SUMS.items()]


@pytest.mark.parametrize("taught, changes, message", [(kind, *row) for kind, _, *row in FORGED],
                         ids=[f"{kind}: {name}" for kind, name, *_ in FORGED], indirect=["taught"])  # fmt: skip
def test_forged_state_is_refused(taught, state, runtime, changes, message, one_line):
    forge(state, **changes)
    with pytest.raises(runtime.DeviceError, match=message) as error:
        taught.load(state)
    one_line(error)
    assert taught.counts == {"left": 4, "right": 4, "low": 4}


def test_everything_forgotten_is_a_state_too(taught, state, draw):
    for name in taught.names:
        taught.forget(name)
    taught.save(state)
    taught.enroll(draw(1))
    taught.load(state)
    assert taught.names == []
    taught.enroll(draw(2))
    assert taught.counts == {"left": 2, "right": 2, "low": 2}


def test_state_without_a_place_is_refused(device, runtime, tmp_path, one_line):
    for call, message in (
        (lambda: device.save(tmp_path / "nowhere" / "state.npz"), "cannot write"),
        (lambda: device.load(tmp_path / "none.npz"), "missing"),
        (lambda: device.load(tmp_path), "not a plain file"),
    ):
        with pytest.raises(runtime.DeviceError, match=message) as error:
            call()
        one_line(error)


def test_swollen_state_is_refused(device, runtime, files, tmp_path, monkeypatch):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, features=np.zeros((500, 1000), np.float32))
    (tmp_path / "bomb.npz").write_bytes(buffer.getvalue())
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 10**5)
    with pytest.raises(runtime.DeviceError, match="too large"):
        device.load(tmp_path / "bomb.npz")


# Several writers, and power cuts


def test_what_is_written_after_now_is_stamped_no_earlier(files, tmp_path):
    for i in range(200):
        began, path = files.now(), tmp_path / str(i)
        path.write_bytes(b"")
        assert path.stat().st_mtime >= began


def test_a_state_changed_meanwhile_is_not_overwritten(runtime, folder, draw, tmp_path, one_line):
    path, one, other = tmp_path / "state.npz", runtime.Device(folder), runtime.Device(folder)
    one.enroll(draw(1))
    one.save(path)
    other.enroll(draw(2))
    with pytest.raises(runtime.DeviceError, match="changed by another") as error:
        other.save(path)  # it has come since `other` began
    one_line(error)
    other.load(path)
    other.enroll(draw(1, seed=1)["low"], "new")
    other.save(path)
    with pytest.raises(runtime.DeviceError, match="changed by another"):
        one.save(path)
    one.load(path)
    one.save(path)
    one.save(path)
    assert one.names == ["left", "right", "low", "new"]
    path.unlink()
    one.save(path)
    os.utime(path, (time.time() - 1,) * 2)  # within one tick of the clock that stamps files nobody can tell
    runtime.Device(folder).save(path)  # a script that is run again starts from nothing
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


def test_writers_wait_for_one_another(runtime, folder, draw, tmp_path):
    """Eight threads as eight processes: locks belong to open files."""
    path, image = tmp_path / "state.npz", draw(1)["low"][0]

    def teach(name):
        device = runtime.Device(folder)
        for _ in range(3):
            with device.updating(path):
                device.enroll([image], name)

    writers = [threading.Thread(target=teach, args=(str(i),)) for i in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    device = runtime.Device(folder)
    device.load(path)
    assert device.counts == {str(i): 3 for i in range(8)}
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


def test_waiting_ends(device, runtime, files, tmp_path, one_line):
    with files.locked(tmp_path / "state.npz"):
        with (
            pytest.raises(runtime.DeviceError, match="another process keeps writing") as error,
            device.updating(tmp_path / "state.npz", wait_s=0.1),
        ):
            pass
        one_line(error)
    with device.updating(tmp_path / "state.npz", wait_s=0.1):
        pass


def test_a_mistake_while_updating_writes_nothing(device, runtime, draw, tmp_path):
    with device.updating(tmp_path / "state.npz"):
        device.enroll(draw(1))
    before = (tmp_path / "state.npz").read_bytes()
    with pytest.raises(runtime.DeviceError, match="no class"), device.updating(tmp_path / "state.npz"):
        device.forget("left")
        device.forget("nothing")
    assert (tmp_path / "state.npz").read_bytes() == before


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_end(device, draw, tmp_path, monkeypatch):
    done, replace, fsync = [], os.replace, os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (done.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle))
    )
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    device.enroll(draw(1))
    device.save(tmp_path / "state.npz")
    temporary, renamed, folder = done
    assert temporary.endswith(".tmp") and renamed == "replace" and folder == str(tmp_path)


def test_a_full_disk_leaves_the_old_state(device, runtime, draw, tmp_path, monkeypatch, one_line):
    device.enroll(draw(1))
    device.save(tmp_path / "state.npz")
    before = (tmp_path / "state.npz").read_bytes()
    device.enroll(draw(1))

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(runtime.DeviceError, match="No space left") as error:
        device.save(tmp_path / "state.npz")
    one_line(error)
    assert (tmp_path / "state.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from edgemeta_device import Device
device, image = Device(sys.argv[1]), np.eye(12, dtype=np.uint8) * 200
print("ready", flush=True)
while True:
    with device.updating(sys.argv[2]):
        device.enroll([image] * 50, "eye")
"""


def test_a_kill_leaves_the_old_state_or_the_new(runtime, folder, tmp_path, draw):
    path, device = tmp_path / "state.npz", runtime.Device(folder)
    for delay_s in (0.05, 0.111):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(path)], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(delay_s)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        if path.exists():
            device.load(path)
            assert set(device.names) <= {"eye", "low"} and device.counts.get("eye", 0) % 50 == 0
        (tmp_path / ".state.npz.left.tmp").write_bytes(b"half")  # as a kill between two lines leaves it
        with device.updating(path, wait_s=1):
            device.enroll(draw(1)["low"], "low")
        assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]
