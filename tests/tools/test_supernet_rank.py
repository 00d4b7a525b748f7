"""The benchmark of the supernet's ranking, in small: every figure is there, and a killed run goes on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import supernet_rank as bench
import torch
from scipy.stats import kendalltau

from edgemeta.errors import Infeasible
from edgemeta.search.jobs import DataSpec, load_weights
from edgemeta.search.supernet import Sandwich
from edgemeta.space.presets import conv4_64, edge, tiny
from tests.blobs import blob_pool
from tools import make_zoo

FIXED = (
    "--space tiny --in-shape 1,12,12 --most-mmacs 0.4 --networks 4 --episodes 20 --updates 6 --test-episodes 20 --way 6"
)


@pytest.fixture
def flags(tmp_path, monkeypatch):
    pool = blob_pool(classes=25, seed=0)
    np.savez(tmp_path / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(25), 10))
    spec = DataSpec("npz", str(tmp_path / "blobs.npz"), str(tmp_path / "cache"), (1, 12, 12), 0)
    monkeypatch.setattr(bench, "domains", lambda args: (spec,))
    return [*FIXED.split(), "--run", str(tmp_path / "run"), "--json", str(tmp_path / "rank.json")]


def test_a_run_tells_all_figures_and_goes_on_where_it_was_killed(flags, tmp_path, monkeypatch):
    tested, asked = make_zoo.tested, []

    def killed(work, learner, slow):
        asked.append(work.arch)
        if len(asked) == 6:
            raise KeyboardInterrupt
        return tested(work, learner, slow)

    monkeypatch.setattr(make_zoo, "tested", killed)
    with pytest.raises(KeyboardInterrupt):
        bench.main(flags)
    supernet = next((tmp_path / "run" / "supernet").glob("*.safetensors")).stat().st_mtime_ns
    assert bench.main(flags) == 0
    assert len(asked) == 6 + 3  # what was told already is not trained and tested again
    assert next((tmp_path / "run" / "supernet").glob("*.safetensors")).stat().st_mtime_ns == supernet
    record = json.loads((tmp_path / "rank.json").read_text())
    names = {"kendall_b"} | {f"kendall_b_{name}" for name in (*bench.BASELINES, "supernet_5s")}
    assert names <= record["values"].keys() and all(-1 <= record["values"][name] <= 1 for name in names)
    assert [row["by"] for row in record["rows"]] == ["supernet", *bench.BASELINES, "supernet_5s"]
    networks = record["extra"]["networks"]
    assert len({row["arch"] for row in networks}) == 4 and record["extra"]["updates"] == 6
    assert all(row["macs"] <= 400_000 and row["episodes"] == 20 and 0 < row["alone"] <= 1 for row in networks)
    monkeypatch.setattr(make_zoo, "train", None)  # all is done: nothing trains again
    monkeypatch.setattr(bench, "tested", None)
    assert bench.main(flags) == 0
    assert json.loads((tmp_path / "rank.json").read_text())["values"] == record["values"]


def test_networks_are_distinct_and_have_no_more_work_than_conv4_64():
    space = edge()
    args = bench._arguments([])
    most = bench._shared(space, args).settings.most_mmacs
    assert most == pytest.approx(9.81504)
    archs = bench.drawn(space, 40, most, seed=0)
    assert archs == bench.drawn(space, 40, most, seed=0) != bench.drawn(space, 40, most, seed=1)
    assert len({space.ops(arch) for arch in archs}) == 40
    assert all(bench.sizes(space, arch)["macs"] <= 1e6 * most for arch in archs)
    assert bench.sizes(space, conv4_64(space)) == {"macs": 9_815_040, "params": 576 + 64 + 3 * (64 * 64 * 9 + 64)}


def test_a_cap_that_too_few_meet_is_told(monkeypatch):
    monkeypatch.setattr(bench, "TRIES", 50)
    with pytest.raises(Infeasible, match="0 of 3 networks .*raise --most-mmacs"):
        bench.drawn(tiny(), 3, 0.001, seed=0)


def test_a_look_takes_the_supernets_weights_and_trains_them_where_it_is_told_to(flags):
    args = bench._arguments(flags)
    space = tiny((1, 12, 12))
    job = bench._shared(space, args)
    assert bench.weights_of(job) == {"weights": str(job.path)} and not job.path.with_suffix(".checkpoint").exists()
    work = bench._works(space, bench.drawn(space, 1, 0.4, seed=0), args)[0]
    look = bench.Look(work, str(job.path))
    paths = {look.path, replace(look, episodes=4).path, bench.Look(work).path, work.path}
    assert len(paths) == 4
    _, inherited = bench._weights(look)
    shared = load_weights(job.path)
    assert torch.equal(inherited["head.log_temperature"], shared["head.log_temperature"])
    kernel = inherited["0.weight"]
    assert torch.equal(
        kernel, shared["stage1.layer1.conv.0.weight"][: len(kernel)][..., _middle(kernel), _middle(kernel)]
    )
    _, tuned = bench._weights(replace(look, episodes=4))
    _, random = bench._weights(bench.Look(work))
    assert all(not torch.equal(other["0.weight"], kernel) for other in (tuned, random))
    assert (tuned["0.weight"] - kernel).abs().max() < (random["0.weight"] - kernel).abs().max()
    assert random["stat.0.var"].min() > 0 and not torch.equal(random["stat.0.var"], torch.ones(len(kernel)))


def test_another_supernet_is_another_file(flags):
    space, path = tiny((1, 12, 12)), bench._shared(tiny((1, 12, 12)), bench._arguments(flags)).path
    for other in (["--updates", "7"], ["--seed", "1"], ["--drawn", "1"], ["--distil", "0"], ["--way", "5"]):
        assert bench._shared(space, bench._arguments([*flags, *other])).path != path
    assert Sandwich().drawn == bench._arguments([]).drawn


def test_agreement_is_tau_b_with_intervals():
    alone = np.arange(30.0)
    noise = np.random.default_rng(0).normal(0, 8, 30)
    rows = [
        {"alone": x, "supernet": x + 1, "macs": -x, "params": 1.0, "random_init": x + e, "5s": e, "supernet_5s": x // 2}
        | {"score_s": 2.0}
        for x, e in zip(alone, noise, strict=True)
    ]
    values, ranked = bench.told(rows, seed=0)
    assert values["kendall_b"] == values["kendall_b_low"] == values["kendall_b_high"] == 1
    assert values["kendall_b_macs"] == -1 and values["kendall_b_params"] == 0 and values["supernet_first"] == 1
    assert 0.9 < values["kendall_b_supernet_5s"] < 1 and values["score_s"] == 2 and values["alone_mean"] == 14.5
    middle = next(row for row in ranked if row["by"] == "random_init")
    assert middle["low"] < middle["kendall_b"] == values["kendall_b_random_init"] < middle["high"]
    assert bench.told(rows, seed=0)[1] == ranked


def test_tau_is_that_of_scipy_with_ties_and_0_where_nothing_is_ranked():
    rng = np.random.default_rng(0)
    one, other = rng.integers(6, size=(2, 5, 20)).astype(float)
    assert bench.tau(one, other) == pytest.approx([kendalltau(*pair)[0] for pair in zip(one, other, strict=True)])
    assert bench.tau(one[0], np.ones(20)) == 0


@pytest.mark.parametrize("flags", [["--networks", "1"], ["--accelerator", "cuda"], ["--minutes", "0"]])
def test_settings_that_measure_nothing_are_refused(flags, capsys):
    with pytest.raises(SystemExit):
        bench._arguments(flags)
    assert "--" in capsys.readouterr().err


def _middle(kernel):
    return slice((5 - kernel.shape[3]) // 2, (5 + kernel.shape[3]) // 2)
