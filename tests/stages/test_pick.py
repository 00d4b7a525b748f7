"""A bundle without training: which network is chosen for a device, a budget and a folder, and what is told."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from edgemeta import pipeline
from edgemeta.errors import BadData, BadProfile, Infeasible
from edgemeta.latency import measure
from edgemeta.latency import profile as profiles
from edgemeta.learners import LEARNERS
from edgemeta.learners.settings import Training
from edgemeta.learners.train import train
from edgemeta.lowering import bundle
from edgemeta.nets.build import build
from edgemeta.search import zoo
from edgemeta.space.presets import tiny
from edgemeta.stages import device_side, pick
from tests.blobs import blob_pool

SMALL, LARGE = {"width": 4, "down": "stride"}, {"width": 8, "depth": 2}


def rows_at(accuracy: float) -> tuple[dict, ...]:
    shared = {"learner": "protonet", "data": "blobs", "way": 5, "shot": 5, "ci95": 0.01, "episodes": 9}
    return tuple(shared | {"split": split, "accuracy": accuracy} for split in ("val", "test"))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A zoo of a small network and a large one, said to be the better, hardly trained."""
    space, nets = tiny(), []
    for settings, accuracy in ((SMALL, 0.8), (LARGE, 0.9)):
        arch = space.arch([settings, settings])
        learner = LEARNERS["protonet"](build(space.ops(arch)))
        slow = learner.init(rng=torch.Generator().manual_seed(0))
        pool = blob_pool(classes=20, seed=1)
        slow = train(learner, slow, pool, Training(episodes=30, way=10), rng=np.random.default_rng(0))
        nets.append((zoo.Member(arch, 30, rows_at(accuracy)), slow))
    path = tmp_path_factory.mktemp("shelf") / "zoo.safetensors"
    return zoo.write(path, nets, learner="protonet", ink_high=True, facts={"data": "blobs"})


@pytest.fixture
def images(tmp_path):
    """Four images of each of three classes, ink on paper, and others of them to ask about."""
    pool = blob_pool(classes=3, seed=7)
    for name, positions in zip("abc", pool.by_class, strict=True):
        for part, chosen in (("teach", positions[:4]), ("ask", positions[4:])):
            (tmp_path / part / name).mkdir(parents=True)
            for i in chosen:
                paper = np.pad(255 - pool.x[i, 0].numpy(), 2, constant_values=255)
                Image.fromarray(paper).save(tmp_path / part / name / f"{i}.png")
    return tmp_path / "teach"


@pytest.fixture
def settings(tmp_path, shelf, images):
    return {"run": tmp_path / "run", "zoo": shelf, "images": images, "device": "null", "progress": False}


def note(settings) -> dict:
    return json.loads((settings["run"] / "pick.json").read_text())


def test_the_more_accurate_network_that_fits_is_taught_the_folder(settings, tmp_path):
    text = str(pipeline.pick(**settings))
    found, run = zoo.read(settings["zoo"]), settings["run"]
    manifest = bundle.read(run / "bundle")
    assert tuple(manifest.facts["picks"]) == found.members[1].arch.picks
    assert manifest.normalisation.polarity == "ink-high" and manifest.costs.measured is None
    assert manifest.facts["data"] == "blobs" and manifest.facts["zoo"] == found.digest
    assert [test["split"] for test in manifest.facts["tests"]] == ["test"] and manifest.facts["episodes"] == 30
    assert (
        "inverted 12 of 12 images" in text
        and "predicted, not measured" in text
        and "90.0 % on held-out classes" in text
        and "--state" in text
    )
    told = pipeline.predict(bundle=run / "bundle", state=run / "state.npz", images=tmp_path / "ask")
    shown = told.text.splitlines()
    assert len(shown) == 18
    assert sum(line.split("\t")[0].split("/")[-2] == line.split("\t")[1] for line in shown) >= 11  # chance is 6


def test_a_cap_leaves_the_small_one_and_the_state_is_of_the_new_bundle(settings):
    pipeline.pick(**settings)
    first = bundle.read(settings["run"] / "bundle")
    text = str(pipeline.pick(**settings, flash_kib=8.0))
    second = bundle.read(settings["run"] / "bundle")
    assert second.facts["picks"] != first.facts["picks"] and second.costs.graph_kib <= 8.0 < first.costs.graph_kib
    assert "1 of 2 trained networks fit" in text and note(settings)["choices"][1]["over"] == ["flash_kib"]
    device = device_side.runtime().Device(settings["run"] / "bundle")
    device.load(settings["run"] / "state.npz")
    assert device.counts == {"a": 4, "b": 4, "c": 4}


def test_this_machine_is_timed_once_and_the_bundle_is_measured(settings, monkeypatch):
    monkeypatch.setattr(pick, "TIMED_S", 0.3)
    text = str(pipeline.pick(**settings | {"device": "host"}))
    assert "measured here" in text and bundle.read(settings["run"] / "bundle").costs.measured
    (kept,) = settings["run"].glob("profile-zoo-*.json")
    assert len(profiles.load(kept).nets) == 2
    monkeypatch.setattr(measure, "measure_nets", None)  # a second timing would break
    timed = pick.Timed(profiles.load(kept), tiny())
    other = tiny().ops(tiny().arch([SMALL, LARGE]))
    with pytest.raises(BadProfile, match="not timed here; delete the profile"):
        timed.latency(other)
    with pytest.raises(BadProfile, match="do not add up"):
        timed.additive(tiny())
    again = pipeline.pick(**settings | {"device": "host"}, flash_kib=8.0)
    assert "measured here" in again.text and note(settings)["winner"]["cost"]["flash_kib"] <= 8.0


def test_what_nothing_fits_names_the_nearest_and_the_flag(settings):
    with pytest.raises(
        Infeasible, match="none of the 2 networks.*latency 1e-05 ms.*the nearest, tiny.*--latency-ms"
    ) as e:
        pipeline.pick(**settings, latency_ms=1e-5)
    assert "\n" not in str(e.value) and not (settings["run"] / "bundle").exists()
    with pytest.raises(Infeasible, match="raise --flash-kib"):
        pipeline.pick(**settings, flash_kib=1.0)


def test_mistakes_are_named(settings, images):
    with pytest.raises(BadProfile, match="unknown device 'raspbery'"):
        pipeline.pick(**settings | {"device": "raspbery"})
    with pytest.raises(BadProfile, match="holds no operator"):
        pipeline.pick(**settings | {"device": "intel-xeon-ort-1t"})  # measured for another space
    with pytest.raises(BadData, match="teach is split into train, test; name one"):
        shutil.copytree(images, images.parent / "teach2")
        for split in ("train", "test"):
            for own in ("a", "b") if split == "train" else ("c",):
                shutil.copytree(images.parent / "teach2" / own, images.parent / "split" / "teach" / split / own)
        pipeline.pick(**settings | {"images": images.parent / "split" / "teach"})
    shutil.rmtree(images / "b")
    shutil.rmtree(images / "c")
    with pytest.raises(BadData, match="one class only"):
        pipeline.pick(**settings)
    with pytest.raises(BadData, match="does not exist"):
        pipeline.pick(**settings | {"images": images / "nowhere"})


def test_left_out_images_are_named_by_the_others():
    """Two classes around (1, 0) and (0, 1); the last example of the first lies among the second."""
    z = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.1, 0.9], [0.0, 1.0], [0.1, 1.0]])
    learner = LEARNERS["protonet"](build(tiny().ops(tiny().arch([SMALL, SMALL]))))
    slow = {"head.log_temperature": torch.tensor(0.0)}
    y = torch.tensor([0, 0, 0, 1, 1])
    assert pick.leave_one_out(learner, slow, z, y, [0, 1, 2, 3, 4]) == 0.8
    assert pick.leave_one_out(learner, slow, z, y, [2]) == 0.0


def test_many_images_of_ones_own_count_more_than_the_index():
    member = zoo.Member(tiny().arch([SMALL, SMALL]), 1, rows_at(0.9))
    choice = pick.Choice(member, None, (), 0.9)
    assert choice.expected == 0.9
    few, many = (pick.Choice(member, None, (), 0.9, 0.5, asked).expected for asked in (10, pick.WORTH))
    assert few == pytest.approx((0.9 * pick.WORTH + 5) / (pick.WORTH + 10)) and many == pytest.approx(0.7)


def test_a_class_with_one_image_is_not_asked():
    labels = np.array([0, 1, 1, 2, 2, 2])
    assert pick._asked(labels, rng=np.random.default_rng(0)).tolist() == [1, 2, 3, 4, 5]
    many = pick._asked(np.repeat([0, 1], 300), rng=np.random.default_rng(0))
    assert len(many) == pick.ASKED == len(set(many.tolist()))
    assert len(pick._asked(np.arange(4), rng=np.random.default_rng(0))) == 0


def test_int8_is_compared_on_the_users_images(settings):
    text = str(pipeline.pick(**settings | {"device": "host"}, int8=True, flash_kib=40.0))
    manifest = bundle.read(settings["run"] / "bundle")
    told = manifest.facts["precision"]
    assert told["precision"] == manifest.precision and told["accuracy_of"] == "12 of your images, left out in turn"
    assert told["why"] in text and "int8" in text and note(settings)["winner"]["precision"] == manifest.precision
