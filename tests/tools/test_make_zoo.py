"""The command that makes the zoo, in its tiny form: its ladders, what it keeps, and going on after a kill."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edgemeta.data.episode import pool as pool_of
from edgemeta.search import zoo
from edgemeta.search.jobs import DataSpec, load_data
from edgemeta.space.presets import LANDMARKS, edge
from edgemeta.types import Arch, Cost
from tests.blobs import blob_pool
from tools import make_zoo


@pytest.fixture
def arguments(tmp_path):
    pool = blob_pool(classes=25, seed=0)
    np.savez(tmp_path / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(25), 10))
    flags = {"run": tmp_path / "run", "out": tmp_path / "zoo.safetensors", "data": f"npz={tmp_path / 'blobs.npz'}"}
    fixed = [
        "--quick",
        "--episodes",
        "16",
        "--space",
        "tiny",
        "--in-shape",
        "1,12,12",
        "--devices",
        "null",
        "--pool",
        "60",
    ]
    return [*fixed, *(text for name, value in flags.items() for text in (f"--{name}", str(value)))]


def test_the_quick_form_makes_a_whole_zoo_and_goes_on_where_it_was_killed(arguments, tmp_path, monkeypatch):
    train, trainings = make_zoo.train, []

    def killed(learner, slow, pools, settings, **how):
        trainings.append(settings.episodes)
        if len(trainings) == 6:
            raise KeyboardInterrupt
        return train(learner, slow, pools, settings, **how)

    monkeypatch.setattr(make_zoo, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        make_zoo.main(arguments)
    assert not (tmp_path / "zoo.safetensors").exists()
    assert make_zoo.main(arguments) == 0
    assert trainings == [1] * 4 + [16] * 5  # one of them twice: the one that was killed
    found = zoo.read(tmp_path / "zoo.safetensors")
    assert len(found.members) == 4 and len({found.space.ops(member.arch) for member in found.members}) == 4
    assert found.facts["data"] == "npz" and found.facts["settings"]["networks"] == 4
    for member in found.members:
        assert found.weights(member) and member.episodes == 16
        sets = {(row["data"], row["split"], row["shot"]) for row in member.tests}
        assert sets >= {("npz", "val", 1), ("npz", "val", 5), ("npz", "test", 5), ("digits", "test", 1)}
    monkeypatch.setattr(make_zoo, "train", None)  # all is done: nothing trains again
    assert make_zoo.main(arguments) == 0
    spec = DataSpec("npz", str(tmp_path / "blobs.npz"), "", (1, 12, 12), 0)
    work = SimpleNamespace(splits=("val",), domains=(spec,), test_episodes=50, seed=0)
    again = make_zoo.tested(work, found.net_learner(member), found.weights(member))  # what was tested is what ships
    assert again == [row for row in member.tests if row["split"] == "val"]


def test_each_ladder_has_its_rungs_and_no_candidate_fills_two():
    archs = [Arch("s", (i,)) for i in range(40)]
    measured = {arch: Cost(1.1**i, 1.2 ** (i % 20), 3.0 + i) for i, arch in enumerate(archs)}
    found, rungs = make_zoo.ladders(measured, archs[:1], SimpleNamespace(networks=8, each=2))
    assert len(rungs) == 8 and archs[0] in found and len(found) == len(set(found))
    fresh = [arch for rung in rungs for arch in rung if arch != archs[0]]
    assert len(fresh) == len(set(fresh)) and all(1 <= len(rung) <= 3 for rung in rungs)
    slowest = [max(measured[arch].latency_ms for arch in rung) for rung in rungs[:4]]
    assert slowest == sorted(slowest) and slowest[0] <= 1.1**10 and slowest[-1] >= 1.1**29


def test_the_best_of_each_rung_is_kept_once():
    a, b, c = (Arch("s", (i,)) for i in range(3))
    scores = {a: 0.9, b: 0.8, c: 0.5}
    assert make_zoo.best_of_rungs([[a, b], [a, b, c], [a]], scores) == [a, b]


def test_what_the_file_has_no_room_for_is_left_out(monkeypatch):
    space = edge()
    nets = [LANDMARKS[name](space) for name in ("conv4-64", "tapered")]
    sizes = [make_zoo.stored_bytes(space.ops(arch)) for arch in nets]
    assert 2 * 111_000 < sizes[0] < 2 * 111_000 + 20_000
    monkeypatch.setattr(zoo, "MAX_BYTES", sum(sizes) - 1)
    assert make_zoo.within_budget(nets, space) == [nets[1]]


def test_thinned_pools_keep_whole_classes(tmp_path, monkeypatch):
    np.savez(tmp_path / "b.npz", x=blob_pool(classes=25, seed=0).x.numpy(), y=np.repeat(np.arange(25), 10))
    whole = pool_of(load_data(DataSpec("npz", str(tmp_path / "b.npz"), "", (1, 12, 12), 0)), "train")
    monkeypatch.setattr(make_zoo, "CLASSES", 3)
    monkeypatch.setattr(make_zoo, "MOST", 4)
    thin = make_zoo.thinned(whole)
    assert thin.class_names == tuple(whole.class_names[i] for i in (0, 7, 14)) and len(thin.x) == 12
    assert (thin.x[thin.by_class[2]] == whole.x[whole.by_class[14][:4]]).all()


@pytest.mark.parametrize("flags", [["--networks", "0"], ["--accelerator", "cuda"], ["--test-episodes", "1"]])
def test_settings_that_make_nothing_are_refused(flags, capsys):
    with pytest.raises(SystemExit):
        make_zoo.main(flags)
    assert "--" in capsys.readouterr().err
