from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgemeta import config as configs
from edgemeta.config import make
from edgemeta.errors import BadConfig, BadData
from edgemeta.latency import profile
from edgemeta.learners.settings import RECIPES, Training, recipe
from edgemeta.search.jobs import DataSpec
from edgemeta.stages import assemble
from edgemeta.stages.assemble import require_data
from edgemeta.stages.run_folder import RunFolder


def photos(root, classes: int, per_class: int) -> DataSpec:
    for number in range(classes * per_class):
        path = root / f"c{number // per_class:02d}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number % 256, np.uint8)).save(path)
    return DataSpec("folder", str(root), str(root / "cache"), (1, 8, 8), 0)


@pytest.mark.parametrize(
    ("classes", "per_class", "way", "shot", "says"),
    [
        (3, 6, 3, 1, "3 classes and none for 'train'.*edgemeta enroll"),
        (16, 1, 5, 1, "needs 2 classes: 0 of 6 classes have 2 images"),
        (16, 6, 6, 1, "6-way 1-shot .* needs 6 classes"),
        (16, 6, 5, 6, "5-way 6-shot .* lower way, shot or query"),
    ],
)
def test_data_that_cannot_teach_is_refused_before_any_training(tmp_path, classes, per_class, way, shot, says):
    with pytest.raises(BadData, match=says):
        require_data(photos(tmp_path, classes, per_class), way, shot)


def test_unreadable_images_are_named_and_counted(tmp_path):
    spec = photos(tmp_path, 16, 6)
    (tmp_path / "c00" / "broken.png").write_bytes(b"junk")
    with pytest.warns(UserWarning, match=r"folder: skipped 1 unreadable image: c00/broken\.png"):
        require_data(spec, 5, 1)


def test_every_domain_and_every_phase_must_give_tasks(tmp_path):
    plenty, few = photos(tmp_path / "plenty", 16, 6), photos(tmp_path / "few", 16, 3)
    require_data(plenty, 3, 1, trainings=[Training(shot=(1, 4))])
    require_data(plenty, 3, 1, trainings=[Training(shot=1)], mix=[few])
    with pytest.raises(BadData, match="2-way 4-shot with 1 queries needs 2 classes: 0 of 6"):
        require_data(plenty, 3, 1, trainings=[Training(), Training(shot=(1, 4))], mix=[few])
    with pytest.raises(BadData, match="digits keeps none of its 10 classes for training.*leave it out of --mix"):
        require_data(plenty, 3, 1, mix=[DataSpec("digits", None, str(tmp_path), (1, 8, 8), 0)])


def test_images_that_are_all_the_same_are_refused(tmp_path):
    spec = photos(tmp_path, 16, 6)
    for path in tmp_path.glob("c*/*.png"):
        path.write_bytes((tmp_path / "c00" / "0.png").read_bytes())
    with pytest.raises(BadData, match="all 36 images are the same"):
        require_data(spec, 3, 1)


def test_domains_are_named_with_their_root(tmp_path):
    config = make(configs.Train, {"mix": ("glyphs", f"folder={tmp_path}"), "root": "/elsewhere", "split_seed": 3})
    glyphs, folder = assemble.mixed(config)
    assert (glyphs.name, glyphs.root, glyphs.seed, glyphs.in_shape) == ("glyphs", None, 3, (1, 28, 28))
    assert (folder.name, folder.root) == ("folder", str(Path(tmp_path).resolve()))
    assemble.check(config)
    with pytest.raises(BadConfig, match="unknown data 'folders'; did you mean 'folder'"):
        assemble.check(make(configs.Train, {"mix": (f"folders={tmp_path}",)}))


def test_a_score_is_of_its_learners_recipe(tmp_path, monkeypatch):
    """Scores of one recipe say nothing of another's: the ledger keeps them apart."""
    photos(tmp_path / "photos", 16, 6)
    given = {"data": "folder", "root": tmp_path / "photos", "in_shape": (1, 8, 8), "space": "tiny", "device": "null"}
    config = make(configs.Search, given)

    def problem():
        return assemble.problem_of(config, RunFolder(tmp_path), assemble.space_of(config), profile.load("null"))

    before = problem()
    assert before.training == recipe("protonet")
    monkeypatch.setitem(RECIPES, "protonet", Training(way=7, tasks=2))
    assert problem().training == Training(way=7, tasks=2) and problem().task != before.task
    job = problem().job(assemble.space_of(config).arch([{}, {}]), 1)
    assert (job.training.way, job.training.tasks, job.training.episodes) == (7, 2, config.rungs[1])


@pytest.mark.parametrize(
    ("there", "asked", "taken"), [(True, "auto", "cuda"), (True, "cpu", "cpu"), (False, "auto", "cpu")]
)
def test_an_accelerator_is_taken_where_there_is_one(there, asked, taken, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert assemble.accelerator(asked) == taken


def test_an_accelerator_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadConfig, match="leave --accelerator out"):
        assemble.accelerator("cuda")


def test_a_device_without_bfloat16_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "an old one")
    with pytest.raises(BadConfig, match="an old one computes no bfloat16; leave --precision out"):
        assemble.accelerator("auto", "bf16")
    assert assemble.accelerator("cpu", "bf16") == "cpu" and assemble.accelerator("auto") == "cuda"
