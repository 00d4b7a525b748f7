"""Bundles in ORT format: they are bundles, answer the same, and say what a minimal build needs."""

from __future__ import annotations

import re

import numpy as np
import onnxruntime
import pytest

from edgemeta.errors import BadBundle
from edgemeta.lowering import bundle, to_ort


@pytest.fixture(scope="module")
def written(protonet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ort")
    bundle.write(folder / "bundle", slow=protonet.slow, learner=protonet.learner, facts={"seed": 1})
    return folder / "bundle", to_ort.write(folder / "bundle", folder / "phone"), folder / "phone"


def test_it_is_a_bundle_of_the_same_answers(written):
    source, told, phone = written
    found, onnx = bundle.read(phone), bundle.read(source)
    assert found == told and found.id != onnx.id == found.facts["onnx"] and found.learner == onnx.learner
    assert {graph.file for graph in found.graphs.values()} == {"body.ort", "adapt.ort", "classify.ort"}
    assert all((phone / graph.file).read_bytes()[4:8] == b"ORTM" for graph in found.graphs.values())
    feeds = bundle.typical(onnx, (source / "adapt.onnx").read_bytes())
    for name in found.graphs:
        one, other = (
            onnxruntime.InferenceSession(folder / f"{name}.{kind}")
            for folder, kind in ((source, "onnx"), (phone, "ort"))
        )
        for want, got in zip(one.run(None, feeds[name]), other.run(None, feeds[name]), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5)


def test_it_names_the_operators_of_a_minimal_build(written):
    lines = (written[2] / to_ort.OPERATORS).read_text().splitlines()
    assert lines[0].startswith("#") and not any("/" in line for line in lines)
    known = dict(re.match(r"(.+?;\d+);(.+)", line).groups() for line in lines[1:])
    assert any("Loop" in operators for operators in known.values())
    assert {key.split(";")[0] for key in known} <= {"ai.onnx", "com.microsoft"}


def test_it_is_replaced_and_nothing_else_is(written, tmp_path):
    source, _, phone = written
    assert to_ort.write(source, phone).facts == written[1].facts
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BadBundle, match=r"holds notes\.txt, not of a bundle"):
        to_ort.write(source, tmp_path)


def test_another_answer_is_refused(written, monkeypatch, tmp_path):
    source, *_ = written
    whole = to_ort.converted
    monkeypatch.setattr(to_ort, "converted", lambda name, model: _bent(whole(name, model)))
    with pytest.raises(BadBundle, match=r"\.(ort|onnx)[: ]"):
        to_ort.write(source, tmp_path / "phone")
    assert not (tmp_path / "phone").exists()


def _bent(model: bytes) -> bytes:
    """The same graph with other numbers in its longest run of weights."""
    data = bytearray(model)
    at = max(range(0, len(data) - 64, 4), key=lambda i: len(set(data[i : i + 64])))
    data[at : at + 64] = np.full(16, 3.0, np.float32).tobytes()
    return bytes(data)
