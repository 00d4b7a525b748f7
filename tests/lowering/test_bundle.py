from __future__ import annotations

import json
import os
import shutil

import numpy as np
import onnx
import pytest

from edgemeta.errors import BadBundle
from edgemeta.lowering import bundle, card, check
from edgemeta.types import Cost

FACTS = {"accuracy": {"5w1s": 0.9}, "seed": 3, "data": "glyphs"}


def save(trained, folder, **settings):
    return bundle.write(folder, slow=trained.slow, learner=trained.learner, facts=FACTS, **settings)


@pytest.fixture(scope="module")
def original(anil, tmp_path_factory):
    return save(anil, tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture
def written(original, tmp_path):
    return shutil.copytree(original, tmp_path / "bundle")


def edit(folder, change):
    record = json.loads((folder / "manifest.json").read_text())
    change(record)
    (folder / "manifest.json").write_text(json.dumps(record))


def test_folder_is_self_contained_and_says_what_it_is(bundled, tmp_path):
    cap = Cost(latency_ms=2.0)
    folder = save(bundled, tmp_path / "deep" / "bundle", polarity="ink-high", predicted=Cost(1.0, 20.0, 30.0), cap=cap)
    names = {f"{graph}.onnx" for graph in bundle.graphs_of(bundle.ON[bundled.learner.on_features])}
    names |= set(bundle.RUNTIME)
    assert {path.name for path in folder.iterdir()} == names | {"manifest.json", "README.md"}
    found = bundle.read(folder)
    assert set(found.files) == names and (folder / "README.md").read_text() == card.text(found)
    assert found.learner.name == bundled.learner.name and found.learner.steps == bundled.learner.steps
    rule = found.normalisation
    assert (rule.channels, rule.height, rule.width) == bundled.net.in_shape and rule.polarity == "ink-high"
    assert (
        found.costs.predicted.ram_kib == 20.0
        and found.costs.caps.latency_ms == 2.0
        and found.costs.caps.ram_kib is None
    )
    assert found.facts == FACTS and found.checked.adapt <= found.checked.tolerance == check.TOLERANCE
    assert {"torch", "onnxruntime", "edgemeta"} <= set(found.versions) and found.costs.adapt_ram_kib > 0
    assert os.stat(folder).st_mode & 0o777 == 0o755


def test_manifest_names_the_graphs_tensors(written):
    found = bundle.read(written)
    for graph in found.graphs.values():
        model = onnx.load(written / graph.file)
        assert [tensor.name for tensor in graph.inputs] == [tensor.name for tensor in model.graph.input]
        assert [tensor.name for tensor in graph.outputs] == [tensor.name for tensor in model.graph.output]
    x = found.graphs["body"].inputs[0]
    assert (x.name, x.dtype, x.shape) == ("x", "float32", ("n", 1, 12, 12)) and "scale" in x.unit


def test_same_input_same_graphs(anil, tmp_path):
    """An integer scale is a scale too: the id follows from what is written, not from what was passed."""
    one, other = (bundle.read(save(anil, tmp_path / name, scale=1)) for name in ("one", "other"))
    assert one == other


def test_replacing_takes_nothing_of_the_old(anil, protonet, tmp_path):
    folder = save(anil, tmp_path / "bundle")
    (folder / "__pycache__").mkdir()
    save(protonet, folder)
    assert bundle.read(folder).learner.name == protonet.learner.name
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_moved_bundle_is_the_same(written, tmp_path):
    (written / "__pycache__").mkdir()
    there = bundle.move(written, tmp_path / "there")
    assert bundle.read(there) == bundle.read(written)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"precious")
    with pytest.raises(BadBundle, match=r"holds cat\.png"):
        bundle.move(written, tmp_path / "photos")


def test_nothing_is_written_unchecked(anil, written, monkeypatch):
    """A wrong graph leaves the old bundle in place and no crumbs beside it."""
    before = bundle.read(written)
    lower = bundle.lower

    def planted(slow, learner):
        graphs = lower(slow, learner)
        tensor = next(tensor for tensor in graphs["body"].graph.initializer if tensor.name == "0.bias")
        value = onnx.numpy_helper.to_array(tensor) + np.float32(0.01)
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        return graphs

    monkeypatch.setattr(bundle, "lower", planted)
    with pytest.raises(BadBundle, match=r"body\.onnx: z differs from torch by .* nothing was written"):
        save(anil, written)
    assert bundle.read(written) == before and [path.name for path in written.parent.iterdir()] == ["bundle"]


def test_folder_of_something_else_is_left_alone(anil, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"precious")
    with pytest.raises(BadBundle, match=r"holds cat\.png"):
        save(anil, tmp_path / "photos")
    (tmp_path / "file").write_text("")
    with pytest.raises(BadBundle, match="is a file"):
        save(anil, tmp_path / "file")


@pytest.mark.parametrize("settings", [{"polarity": "dark"}, {"scale": 0.0}, {"scale": float("nan")}])
def test_unknown_setting_is_refused(anil, tmp_path, settings):
    with pytest.raises(BadBundle, match="normalisation"):
        save(anil, tmp_path / "bundle", **settings)
    assert not any(tmp_path.iterdir())


def test_fact_that_is_not_json_is_refused(anil, tmp_path):
    with pytest.raises(BadBundle, match="facts|fact is not JSON"):
        bundle.write(tmp_path / "b", slow=anil.slow, learner=anil.learner, facts={"accuracy": float("nan")})
    assert not any(tmp_path.iterdir())


def cut(folder):
    (folder / "adapt.onnx").write_bytes((folder / "adapt.onnx").read_bytes()[:-1])


def flip(folder):
    data = bytearray((folder / "body.onnx").read_bytes())
    data[-1] ^= 1
    (folder / "body.onnx").write_bytes(data)


def link(folder):
    (folder / "body.onnx").rename(folder.parent / "elsewhere")
    (folder / "body.onnx").symlink_to(folder.parent / "elsewhere")


def escape(record):
    record["files"]["../elsewhere"] = record["files"].pop("edgemeta_device.py")


DAMAGE = {
    "cut": (cut, "not the file that was written"),
    "flip": (flip, "not the file that was written"),
    "grown": (lambda f: (f / "adapt.onnx").write_bytes(b"0" * 10**6), "larger than"),
    "missing": (lambda f: (f / "classify.onnx").unlink(), "missing"),
    "link": (link, "not a plain file"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "missing"),
    "half a manifest": (lambda f: (f / "manifest.json").write_bytes(b'{"format": '), "not JSON"),
    "deep manifest": (lambda f: (f / "manifest.json").write_bytes(b"[" * 200_000), "not JSON"),
    "huge manifest": (lambda f: (f / "manifest.json").write_bytes(b" " * (2**20 + 1)), "larger than"),
    "binary manifest": (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe\x00"), "not JSON"),
    "list": (lambda f: (f / "manifest.json").write_text("[]"), "manifest"),
    "escape": (lambda f: edit(f, escape), "plain file name"),
    "other version": (lambda f: edit(f, lambda r: r.update(version=3)), "version"),
    "no graphs": (lambda f: edit(f, lambda r: r.update(graphs={})), "does not list the graphs"),
    "other steps": (lambda f: edit(f, lambda r: r["learner"].update(steps=9)), "changed after"),
    "extra field": (lambda f: edit(f, lambda r: r.update(surprise=1)), "surprise"),
    "wrong type": (lambda f: edit(f, lambda r: r["normalisation"].update(height="tall")), "normalisation.height"),
}


@pytest.mark.parametrize("damage, message", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_told_in_one_line(written, damage, message):
    damage(written)
    with pytest.raises(BadBundle, match=message) as error:
        bundle.read(written)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_facts_are_added_without_changing_the_bundle(written):
    before = bundle.read(written)
    after = bundle.update_facts(written, {"note": "é"})
    assert bundle.read(written) == after and (written / "README.md").read_text() == card.text(after)
    assert after.facts == {**FACTS, "note": "é"} and after.id == before.id


def test_measurements_land_in_the_manifest(written):
    timings = bundle.measure(written)
    for name in ("body_ms", "adapt_ms", "classify_ms"):
        assert timings[name]["median_ms"] > 0 and timings[name]["n"] > 0
    found = bundle.update_facts(written, {}, measured=timings)
    assert found.costs.measured is not None and found.costs.measured.threads == 1
    assert "onnxruntime" in found.costs.measured.runtime
