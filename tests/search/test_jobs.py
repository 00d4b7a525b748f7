"""What a worker is asked: to train for certain, to keep what it has, and to say in one line what went wrong."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from edgemeta import terminal
from edgemeta.errors import BadData, Diverged
from edgemeta.learners.settings import Training
from edgemeta.search import jobs
from edgemeta.search.jobs import DataSpec, load_weights, run_job, run_test, save_weights
from tests.blobs import blob_pool


@pytest.fixture
def job(problem, tmp_path):
    """Twelve updates in two shards, the first of them a warm-up."""
    training = Training(24, way=4, query=2, tasks=2, shards=2, warmup=0.1, check_every=5)
    first = problem.job(problem.space.arch([{}, {}]), 0)
    return replace(
        first, training=training, weights=str(tmp_path / "a.safetensors"), keep=str(tmp_path / "a.checkpoint")
    )


def weights_of(job, name="other"):
    """Bytes of what a job trains, kept under another name."""
    job = replace(job, weights=job.weights.replace("a.safe", f"{name}.safe"), keep=None)
    run_job(job)
    with open(job.weights, "rb") as file:
        return file.read()


def test_a_job_that_was_killed_goes_on_and_cleans_up(job, tmp_path, monkeypatch):
    calls = iter(range(1000))

    class Bar(terminal.tqdm):
        def update(self, n=1):
            if next(calls) == 8:
                raise KeyboardInterrupt

    monkeypatch.setattr(terminal, "tqdm", Bar)
    with pytest.raises(KeyboardInterrupt):
        run_job(job)
    assert (tmp_path / "a.checkpoint").exists() and not (tmp_path / "a.safetensors").exists()
    left = 8 - next(calls)
    run_job(job)
    assert next(calls) + left < 8 + 12  # fewer updates than all of them
    assert not (tmp_path / "a.checkpoint").exists()
    assert (tmp_path / "a.safetensors").read_bytes() == weights_of(job)


def test_processes_of_a_job_change_nothing(job):
    assert weights_of(replace(job, workers=2)) == weights_of(job)


def test_a_job_with_patience_keeps_the_best_of_its_validations(job):
    patient = replace(job, training=replace(job.training, patience=9))
    assert run_job(patient).score.mean >= run_job(job).score.mean  # the last parameters are among those validated


def test_another_domain_is_trained_on_too(job, data, tmp_path):
    pool = blob_pool(classes=20, seed=9)
    np.savez(tmp_path / "other.npz", x=pool.x.numpy(), y=np.repeat(np.arange(20), 10))
    mixed = replace(job, mix=(replace(data, root=str(tmp_path / "other.npz")),))
    assert weights_of(mixed, "mixed") != weights_of(job)


def test_a_job_that_goes_on_from_weights_is_warm_already(job):
    run_job(job)
    later = replace(job, warm=job.weights, done=24, weights=job.weights.replace("a.safe", "b.safe"))
    cold = replace(later, training=replace(job.training, warmup=0.0))
    assert weights_of(later) == weights_of(cold)


def test_a_diverged_training_leaves_its_last_good_weights(job, tmp_path):
    wild = replace(job, training=replace(job.training, lr=1e30))
    with pytest.raises(Diverged, match=r"loss is nan .*; the last good weights are in .*a\.last-good") as told:
        run_job(wild)
    assert "\n" not in str(told.value)
    kept = load_weights(tmp_path / "a.last-good")
    assert all(value.isfinite().all() for value in kept.values())
    with pytest.raises(Diverged) as told:
        run_job(replace(wild, keep=None, weights=str(tmp_path / "b.safetensors")))
    assert "last good" not in str(told.value) and not told.value.kept and not (tmp_path / "b.last-good").exists()


def test_a_checkpoint_that_is_damaged_is_refused(job, tmp_path):
    (tmp_path / "a.checkpoint").write_bytes(b"junk")
    with pytest.raises(BadData, match="cannot read the checkpoint"):
        run_job(job)


def test_one_class_alone_has_no_accuracy(job, tmp_path):
    """It could not be wrong."""
    for i, (split, name) in enumerate([("train", "a"), ("train", "b"), ("val", "c"), ("val", "d"), ("test", "e")]):
        (tmp_path / "photos" / split / name).mkdir(parents=True)
        for j in range(4):
            picture = np.random.default_rng([i, j]).integers(0, 255, (12, 12), np.uint8)
            Image.fromarray(picture).save(tmp_path / "photos" / split / name / f"{j}.png")
    spec = DataSpec("folder", str(tmp_path / "photos"), str(tmp_path), (1, 12, 12), 0)
    save_weights(job.weights, jobs.crew(job.ops, "protonet")[1].init(rng=None))
    asked = {"way": 5, "shots": (1,), "episodes": 3, "seed": 0}
    rows = run_test(jobs.TestJob(job.ops, "protonet", job.weights, ((spec, "test"), (spec, "val")), **asked))
    assert [(row["split"], row["way"]) for row in rows] == [("val", 2)]
