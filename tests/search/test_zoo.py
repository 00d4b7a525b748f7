"""Networks that ship trained: what is written comes back, and what is damaged is refused in one line."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from edgemeta.errors import BadData
from edgemeta.learners import LEARNERS
from edgemeta.nets.build import build
from edgemeta.search import zoo
from edgemeta.space.presets import SPACES, edge, tiny
from edgemeta.types import Arch

PICKS = ({"width": 4, "down": "stride"}, {"width": 8, "kind": "mb3"})


def row(split: str, shot: int, accuracy: float, data: str = "blobs") -> dict:
    figures = {"accuracy": accuracy, "ci95": 0.01, "episodes": 9}
    return {"learner": "protonet", "data": data, "split": split, "way": 5, "shot": shot, **figures}


def trained(settings: dict, *, seed: int) -> tuple[zoo.Member, dict]:
    space = tiny()
    arch = space.arch([settings, settings])
    slow = LEARNERS["protonet"](build(space.ops(arch))).init(rng=torch.Generator().manual_seed(seed))
    return zoo.Member(arch, 7, (row("val", 1, 0.5), row("val", 5, 0.75), row("test", 5, 0.7))), slow


@pytest.fixture
def path(tmp_path):
    nets = [trained(settings, seed=i) for i, settings in enumerate(PICKS)]
    return zoo.write(tmp_path / "zoo.safetensors", nets, learner="protonet", ink_high=True, facts={"data": "blobs"})


def refused(path, says: str) -> None:
    with pytest.raises(BadData, match=says) as refusal:
        found = zoo.read(path)
        [found.weights(member) for member in found.members]
    assert "\n" not in str(refusal.value)


def rewritten(path, change) -> None:
    """The file with another index, its tensors as they were."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + size])
    index = json.loads(head["__metadata__"]["zoo"])
    change(index)
    head["__metadata__"]["zoo"] = json.dumps(index)
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def test_what_is_written_comes_back_as_it_ships(path):
    found = zoo.read(path)
    assert found.space.name == "tiny-1x12x12" and found.ink_high and found.facts == {"data": "blobs"}
    for i, (settings, member) in enumerate(zip(PICKS, found.members, strict=True)):
        wanted, slow = trained(settings, seed=i)
        assert member == wanted
        got, rounded = found.weights(member), zoo.rounded(slow)
        assert got.keys() == slow.keys() and all(torch.equal(got[name], rounded[name]) for name in slow)
        assert all(value.dtype == torch.float32 for value in got.values())
        assert all(torch.equal(got[name], slow[name]) for name in slow if slow[name].dim() < 2)
        assert all((got[name] - slow[name]).abs().max() < 2e-3 for name in slow)


def test_expected_accuracy_is_that_at_the_nearest_shots_over_the_domains():
    tests = (row("val", 1, 0.5), row("val", 1, 0.7, "digits"), row("val", 5, 0.9), row("test", 1, 0.1))
    member = zoo.Member(Arch("tiny-1x12x12", ()), 1, tests)
    assert member.accuracy("val", 2) == pytest.approx(0.6) and member.accuracy("val", 3) == pytest.approx(0.6)
    assert member.accuracy("val", 20) == 0.9 and member.accuracy("test", 5) == 0.1


def test_a_cut_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "no whole safetensors file")
    path.write_bytes(b"")
    refused(path, "no whole safetensors file")
    path.unlink()
    refused(path, "cannot read the zoo .*make the file anew")


def test_a_huge_claim_is_refused_before_it_is_believed(path, tmp_path):
    with path.open("r+b") as file:
        file.truncate(zoo.MAX_BYTES + 1)
    refused(path, f"at most {zoo.MAX_BYTES}")
    claim = {"a": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}
    text = json.dumps(claim).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    refused(path, "no whole safetensors file")
    path.write_bytes(struct.pack("<Q", 2**60) + bytes(16))
    refused(path, "no whole safetensors file")


def test_safetensors_of_something_else_are_no_zoo(path):
    save_file({"a": torch.zeros(2)}, str(path))
    refused(path, "is no zoo")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda index: index["members"][0].update(picks=[0, 0, 99] + index["members"][0]["picks"][3:]), "past its"),
        (lambda index: index["members"][0].update(picks=[0]), "1 picks, expected 10"),
        (lambda index: index["members"].reverse(), "of network 0 is not that of"),
        (lambda index: index.update(space="egde-1x12x12"), "unknown here; did you mean 'edge-1x28x28'"),
        (lambda index: index.update(space="tiny-3x12x12"), "is not that of"),
        (lambda index: index.update(space="tiny-1x99999999x99999999"), "have more than"),
        (lambda index: index.update(version=2), "not edgemeta-zoo 1"),
        (lambda index: index.update(learner="protonets"), "of protonets"),
        (lambda index: index.update(members=[]), "members"),
        (lambda index: index["members"][0]["tests"][0].update(accuracy=1.5), "accuracy"),
        (lambda index: index.update(more=1), "more"),
        (lambda index: index["members"].append(index["members"][0]), "holds a network twice"),
    ],
)
def test_a_wrong_index_is_refused(path, change, says):
    rewritten(path, change)
    refused(path, says)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    member, slow = trained(PICKS[0], seed=0)
    bad = slow | {"0.weight": slow["0.weight"] * float("nan")}
    refused(zoo.write(tmp_path / "z", [(member, bad)], learner="protonet", ink_high=False, facts={}), "are no numbers")


def test_a_zoo_that_is_too_large_is_not_written(tmp_path):
    member, slow = trained(PICKS[0], seed=0)
    huge = slow | {"0.weight": torch.zeros(zoo.MAX_BYTES // 2, 1)}
    with pytest.raises(BadData, match="give fewer or smaller"):
        zoo.write(tmp_path / "z", [(member, huge)], learner="protonet", ink_high=True, facts={})
    with pytest.raises(BadData, match="0 networks of 0 spaces"):
        zoo.write(tmp_path / "z", [], learner="protonet", ink_high=True, facts={})
    assert list(tmp_path.iterdir()) == []


def test_the_one_that_ships_is_whole():
    found = zoo.read()
    assert found.space == edge() and found.path.stat().st_size <= zoo.MAX_BYTES and len(found.members) >= 4
    assert {"commit", "date", "versions", "data", "settings"} <= found.facts.keys()
    for member in found.members:
        slow = found.weights(member)
        z = found.net_learner(member).net.body(slow, torch.rand(2, 1, 28, 28))
        assert z.isfinite().all() and member.accuracy("val", 5) > 0.8
        assert {(test["data"], test["split"]) for test in member.tests} >= {("glyphs", "val"), ("digits", "test")}
    assert SPACES["edge"]().name == found.space.name
