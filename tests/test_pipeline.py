"""The whole road on small real data: images in a file, the tiny space, a device that takes 1 ms per million MACs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from edgemeta import config as configs
from edgemeta import pipeline
from edgemeta.config import make
from edgemeta.errors import BadData, EdgemetaError, Infeasible
from edgemeta.latency import profile as profiles
from edgemeta.learners.settings import RECIPES, Training
from edgemeta.lowering import bundle
from edgemeta.search import jobs
from edgemeta.stages import assemble, candidates, summary, telling
from edgemeta.stages.run_folder import RunFolder
from tests.blobs import blob_pool

CAP_MS = 0.06


def settings_for(root: Path) -> dict:
    return {
        "run": root / "run",
        "space": "tiny",
        "in_shape": (1, 12, 12),
        "data": "npz",
        "root": root / "blobs.npz",
        "cache": root / "cache",
        "device": "null",
        "latency_ms": CAP_MS,
        "way": 4,
        "rungs": (3, 9),
        "eval_episodes": 10,
        "workers": 1,
        "progress": False,
    }


def write_blobs(root: Path) -> None:
    pool = blob_pool(classes=25, seed=0)
    np.savez(root / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(25), 10))


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A finished run: searched, trained, exported, reported."""
    root = tmp_path_factory.mktemp("road")
    write_blobs(root)
    settings = settings_for(root)
    pipeline.search(**settings, trials=4)
    pipeline.train(**settings, trials=4, episodes=150, test_episodes=10)
    pipeline.export(run=settings["run"], progress=False)
    pipeline.report(run=settings["run"], progress=False)
    return settings


def test_the_bundle_is_under_the_caps_and_knows_its_past(road):
    manifest = bundle.read(road["run"] / "bundle")
    assert manifest.costs.predicted.latency_ms <= CAP_MS == manifest.costs.caps.latency_ms
    assert manifest.costs.measured is None  # the null device is not this machine, and nothing pretends it is
    assert manifest.facts["episodes"] == 150 and manifest.facts["data"] == "npz"
    shots = {row["shot"] for row in manifest.facts["tests"]}
    assert shots == {1, 2, 3, 5, 10} and all(row["split"] == "test" for row in manifest.facts["tests"])


def test_each_learner_has_its_bundle(road):
    learners = [bundle.read(path).learner.name for path in summary.bundles_of(road["run"] / "bundle")]
    assert learners == ["protonet", "anil"]


def test_the_device_answers_as_torch_does(road):
    from edgemeta.learners import LEARNERS
    from edgemeta.nets.build import build
    from edgemeta.search.jobs import DataSpec, data_pool, load_weights
    from edgemeta.stages.device_side import compare
    from edgemeta.types import Arch

    space, trained = assemble.SPACES["tiny"]((1, 12, 12)), RunFolder(road["run"]).read("train")
    net = build(space.ops(Arch(space.name, tuple(trained["picks"]))))
    judge = data_pool(DataSpec("npz", str(road["root"]), str(road["cache"]), (1, 12, 12), 0), "test")
    for target in summary.bundles_of(road["run"] / "bundle"):
        name = bundle.read(target).learner.name
        slow, rng = load_weights(trained["weights"][name]), np.random.default_rng(0)
        result = compare(target, LEARNERS[name](net), slow, judge, way=4, shot=3, episodes=5, rng=rng)
        assert result["agreement"] == 1.0 and result["device_accuracy"] == result["torch_accuracy"]


def test_the_report_tells_the_run(road):
    page = (road["run"] / "report.html").read_text()
    picks = ".".join(map(str, RunFolder(road["run"]).read("search")["winner"]["picks"]))
    assert picks in page and "anil" in page and "null" in page


def test_the_ledger_keeps_the_hypervolume(road):
    (study,) = optuna.get_all_study_summaries(f"sqlite:///{RunFolder(road['run']).ledger}")
    assert list(study.user_attrs["hypervolume"]) == ["evolution"] and study.user_attrs["hypervolume"]["evolution"] > 0


def test_going_on_trains_nothing_again(road):
    before = {path: path.stat().st_mtime_ns for path in (road["run"] / "weights").iterdir()}
    pipeline.search(**road, trials=4)
    pipeline.train(**road, trials=4, episodes=150, test_episodes=10)
    assert {path: path.stat().st_mtime_ns for path in (road["run"] / "weights").iterdir()} == before
    assert [bundle.read(path).facts["episodes"] for path in summary.bundles_of(road["run"] / "bundle")] == [150, 150]


def test_another_cap_has_its_own_winner_and_no_stale_tests(road, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(road["run"], run)
    cap_ms = 0.99 * RunFolder(run).read("search")["winner"]["cost"]["latency_ms"]
    pipeline.search(**road | {"run": run, "latency_ms": cap_ms}, trials=1)
    noted = RunFolder(run).read("search")
    assert noted["winner"]["cost"]["latency_ms"] <= cap_ms
    pipeline.export(run=run, progress=False)
    assert bundle.read(run / "bundle").facts["tests"] == []
    assert [path.name for path in summary.bundles_of(run / "bundle")] == ["bundle"]


def test_a_run_folder_remembers_its_task_but_not_its_caps(road, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(road["run"], run)
    pipeline.search(run=run, device="null", trials=1, progress=False)
    kept = RunFolder(run).read("search")["config"]
    assert (kept["data"], kept["space"], kept["in_shape"]) == ("npz", "tiny", [1, 12, 12])
    assert "latency_ms" not in kept
    assert pipeline.train(run=run, learners=("protonet",), episodes=3, test_episodes=5, progress=False).facts["tests"]


def test_a_run_folder_may_be_moved_and_lose_weights(road, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(road["run"], run)
    for note in (run / "search.json", run / "train.json"):
        note.write_text(note.read_text().replace(str(road["run"]), "runs/elsewhere"))
    pipeline.export(run=run, progress=False)
    assert bundle.read(run / "bundle").facts["episodes"] == 150
    lost = run / "weights" / Path(RunFolder(run).read("train")["weights"]["anil"]).name
    lost.unlink()
    with pytest.raises(EdgemetaError, match="are gone; run `edgemeta search`"):
        pipeline.export(run=run, progress=False)
    pipeline.train(run=run, learners=("protonet", "anil"), episodes=3, test_episodes=5, progress=False)
    pipeline.export(run=run, progress=False)


def test_profiling_again_replaces_a_damaged_profile(tmp_path):
    path = RunFolder(tmp_path).profile("tiny-1x12x12")
    path.write_text('{"device": ')
    assert str(path) in pipeline.profile(run=tmp_path, space="tiny", in_shape=(1, 12, 12), nets=2, progress=False).text
    assert profiles.load(path).nets and not list(tmp_path.glob("*.partial.json"))


def test_energy_is_a_budget_from_the_search_to_the_report(road, tmp_path):
    """On a device of 2 mJ per ms the cap on energy binds before the one on latency."""
    null, run = profiles.load("null"), tmp_path / "run"
    shutil.copytree(road["run"], run)
    device = profiles.save(
        replace(null, device="rated", overhead={**null.overhead, "per_ms_mj": 2.0}), tmp_path / "r.json"
    )
    cap_mj = 2 * sorted(entry["cost"]["latency_ms"] for entry in RunFolder(run).read("search")["ranking"])[1]
    limits = {"run": run, "device": str(device), "energy_mj": cap_mj, "ram_kib": 64.0, "flash_kib": 600.0}
    text = str(pipeline.search(**road | limits, trials=1))
    assert "energy [mJ]" in text and "mJ (predicted, not measured" in text
    pipeline.report(run=run, progress=False)
    manifest, noted = bundle.read(run / "bundle"), RunFolder(run).read("search")
    assert manifest.costs.predicted.energy_mj == 2 * manifest.costs.predicted.latency_ms <= cap_mj
    assert (manifest.costs.caps.energy_mj, manifest.costs.caps.ram_kib, manifest.costs.caps.flash_kib) == (
        cap_mj,
        64,
        600,
    )
    assert all(entry["cost"]["energy_mj"] <= cap_mj for entry in noted["ranking"])
    page = (run / "report.html").read_text()
    assert f"cap {cap_mj:.3g} mJ" in page and "cap 64 KiB" in page and "cap 600 KiB" in page
    assert f"{noted['winner']['cost']['energy_mj']:.3g}" in str(pipeline.export(run=run, progress=False))


def test_a_run_without_energy_says_so(road):
    text = f"{telling.search(RunFolder(road['run']))} {telling.exported(road['run'] / 'bundle')}"
    assert text.count("not measured") > 2 and "not measured" in (road["run"] / "report.html").read_text()


@pytest.fixture
def in_this_process(monkeypatch):
    """Jobs run on a thread instead of other processes; yields those of trainings."""
    asked = []

    @contextmanager
    def threads(workers):
        with ThreadPoolExecutor(1) as executor:
            yield executor

    def run_job(job):
        asked.append(job)
        return jobs.run_job(job)

    monkeypatch.setattr(pipeline, "worker_pool", threads)
    monkeypatch.setattr(pipeline, "run_job", run_job)
    return asked


def test_a_learner_that_changes_the_body_has_bundles_like_any_other(road, tmp_path, in_this_process):
    """Nothing of another search's bundles stays; those of other learners stand beside it."""
    run = tmp_path / "run"
    shutil.copytree(road["run"], run)
    (run / "train.json").unlink()  # the winner may be the network that was trained there
    settings = road | {"run": run, "rungs": (1, 2), "eval_episodes": 3}
    with pytest.warns(UserWarning, match="another task: theirs is protonet .* this is maml-last"):
        pipeline.search(**settings, learner="maml-last", trials=2)
    winner = RunFolder(run).read("search")["winner"]
    assert (winner["learner"], winner["episodes"]) == ("maml-last", 2)
    assert [path.name for path in summary.bundles_of(run / "bundle")] == ["bundle"]
    found = bundle.read(run / "bundle")
    assert found.learner.on == "images" and found.costs.graph_kib == pytest.approx(winner["cost"]["flash_kib"])
    timed = bundle.measure(run / "bundle")
    assert "body_ms" not in timed and candidates.inference_ms(timed) == timed["classify_ms"]["median_ms"] > 0
    told = pipeline.train(run=run, learners=("maml-last", "protonet"), episodes=2, test_episodes=2, progress=False)
    assert "maml-last" in told.text and "protonet" in told.text
    pipeline.export(run=run, progress=False)
    assert sorted(path.name for path in summary.bundles_of(run / "bundle")) == ["bundle", "bundle-protonet"]


def test_a_training_is_as_its_recipe_says_on_all_domains(road, tmp_path, in_this_process, monkeypatch):
    """Kept while under way, stopped early where asked for, and shared by the workers that no learner needs."""
    recipe, run = Training(way=5, query=2, tasks=2, check_every=4), tmp_path / "run"
    monkeypatch.setitem(RECIPES, "protonet", recipe)
    pool = blob_pool(classes=20, seed=9)
    np.savez(tmp_path / "other.npz", x=pool.x.numpy(), y=np.repeat(np.arange(20), 10))
    shutil.copytree(road["run"], run)
    own = {"run": run, "workers": 5, "learners": ("protonet", "anil"), "episodes": 12, "test_episodes": 4}
    pipeline.train(**road | own, mix=(f"npz={tmp_path / 'other.npz'}",), patience=3)
    pipeline.train(**road | own)
    mixed, plain = (job for job in in_this_process if job.learner == "protonet")
    assert mixed.training == replace(recipe, episodes=12, patience=3) and plain.training == recipe.lasting(12)
    assert [spec.root for spec in mixed.mix] == [str(tmp_path / "other.npz")] and not plain.mix
    assert mixed.workers == plain.workers == 2  # five workers for two learners
    assert mixed.weights != plain.weights and Path(mixed.keep).parent == Path(mixed.weights).parent
    assert Path(mixed.weights).exists() and not list(run.glob("weights/*.checkpoint"))
    assert Path(mixed.weights).read_bytes() != Path(plain.weights).read_bytes()


def test_impossible_caps_say_what_is_possible(road, tmp_path):
    with pytest.raises(Infeasible, match=r"least found is latency .* ms > 1e-05 ms.*raise --latency-ms"):
        pipeline.search(**road | {"run": tmp_path / "run", "latency_ms": 1e-5}, trials=2)


def test_predicted_flash_is_that_of_the_bundle(road):
    for path in summary.bundles_of(road["run"] / "bundle")[:1]:
        costs = bundle.read(path).costs
        assert abs(costs.predicted.flash_kib - costs.graph_kib) < 1 + 0.02 * costs.graph_kib


def test_a_looser_cap_is_searched_and_a_tighter_one_reuses(tmp_path):
    write_blobs(tmp_path)
    settings = settings_for(tmp_path) | {"latency_ms": 0.03}
    pipeline.search(**settings, trials=4)
    pipeline.search(**settings | {"latency_ms": 0.3}, trials=4)
    loose = RunFolder(settings["run"]).read("search")["ranking"]
    assert len(loose) == 8 and max(entry["cost"]["latency_ms"] for entry in loose) > 0.03
    trained = sorted((settings["run"] / "weights").glob("*-3.safetensors"))
    pipeline.search(**settings, trials=4)
    assert sorted((settings["run"] / "weights").glob("*-3.safetensors")) == trained


def test_other_splits_start_cold(road, tmp_path):
    """Weights that were taught some of the classes now held out are not started from."""
    from edgemeta.stages.trainings import winner

    folder, space = RunFolder(road["run"]), assemble.SPACES["tiny"]((1, 12, 12))
    same = make(configs.Train, road)
    assert winner(same, folder, space)[1] is not None
    assert winner(make(configs.Train, road | {"split_seed": 5}), folder, space)[1:] == (None, 0)


def test_the_demos_cap_follows_the_device(tmp_path):
    """Conv4-64 is 9.815 million MACs at 28x28: 9.815 ms on the null device."""
    from edgemeta.pipeline import _with_cap

    config = make(configs.Demo, {"run": tmp_path, "device": "null"})
    assert _with_cap(config).latency_ms == pytest.approx(0.45 * 9.815, rel=2e-3)
    assert _with_cap(make(configs.Demo, {"run": tmp_path, "device": "null", "latency_ms": 3})).latency_ms == 3


def test_two_commands_do_not_work_in_one_folder(road):
    code = (
        "from edgemeta.stages.run_folder import RunFolder; from pathlib import Path; import sys, time\n"
        f"with RunFolder(Path({str(road['run'])!r})).locked(): print('in', flush=True); time.sleep(30)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"in\n"
        with pytest.raises(EdgemetaError, match="another edgemeta works in"):
            pipeline.report(run=road["run"])
        other.kill()
    pipeline.report(run=road["run"])


def test_a_well_known_net_can_be_trained_instead(tmp_path):
    write_blobs(tmp_path)
    settings = settings_for(tmp_path) | {"space": "edge", "latency_ms": 100.0}
    text = str(pipeline.train(**settings, arch="tapered", learners=("protonet",), episodes=2, test_episodes=5))
    assert "protonet" in text and "4w1s" in text


@pytest.mark.parametrize(("classes", "per_class"), [(1, 10), (20, 1)])
def test_data_that_cannot_give_episodes_is_named(tmp_path, classes, per_class):
    x = np.zeros((classes * per_class, 12, 12), np.uint8)
    np.savez(tmp_path / "blobs.npz", x=x, y=np.repeat(np.arange(classes), per_class))
    with pytest.raises(BadData):
        pipeline.search(**settings_for(tmp_path), trials=1)


def test_a_folder_of_images_is_taught_and_recognised(road, tmp_path):
    from PIL import Image

    pool = blob_pool(classes=3, seed=7)
    for name, positions in zip("abc", pool.by_class, strict=True):
        for split, chosen in (("teach", positions[:5]), ("ask", positions[5:])):
            (tmp_path / split / name).mkdir(parents=True)
            for i in chosen:
                Image.fromarray(pool.x[i, 0].numpy()).save(tmp_path / split / name / f"{i}.png")
    (tmp_path / "teach" / "a" / "broken.png").write_bytes(b"not an image")
    device = {"bundle": road["run"] / "bundle", "state": tmp_path / "state.npz"}
    assert '"a": 5' in str(pipeline.enroll(**device, images=tmp_path / "teach"))
    named = [line.split("\t") for line in pipeline.predict(**device, images=tmp_path / "ask").text.splitlines()]
    assert len(named) == 15
    assert sum(Path(path).parent.name == name for path, name, _ in named) >= 9  # chance is 5
    asked = str(pipeline.predict(**device, images=tmp_path / "ask", unknown=0.9))
    assert "\tunknown\t" in asked and len(asked.splitlines()) == 15
    with pytest.raises(EdgemetaError):
        pipeline.enroll(**device, images=tmp_path / "nowhere")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_killed_anywhere_it_goes_on(tmp_path):
    """kill -9, then the same again: nothing half-written, no process left (tools/bench/kill_test.py has more)."""
    write_blobs(tmp_path)
    settings = settings_for(tmp_path)
    flags = [f"--{name.replace('_', '-')}={','.join(map(str, v)) if isinstance(v, tuple) else v}"
             for name, v in settings.items() if name != "progress"]  # fmt: skip
    command = [sys.executable, "-m", "edgemeta.cli", "search", "--trials=6", "--no-progress", *flags]
    run = settings["run"]
    moments = [
        lambda: (run / "ledger.sqlite").exists(),
        lambda: len(list(run.glob("weights/*-9.safetensors"))) > 0,
        lambda: list(run.glob(".bundle*")) or (run / "bundle").exists(),
    ]
    for moment in moments:
        started = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while started.poll() is None and not moment():
            time.sleep(0.01)
        started.send_signal(signal.SIGKILL)
        started.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert bundle.read(settings["run"] / "bundle").costs.predicted.latency_ms <= CAP_MS
    assert json.loads((settings["run"] / "search.json").read_text())["winner"]
    assert not list(run.glob("**/*.tmp"))
    assert not _left(str(tmp_path))


def _left(mark: str) -> list[str]:
    """Command lines of living processes that mention a path."""
    time.sleep(0.5)
    lines = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if mark in text and int(entry.name) != os.getpid():
            lines.append(text)
    return lines
