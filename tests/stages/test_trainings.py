"""What `train` trains, by whom, and what is refused before anyone does."""

import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgemeta import config as configs
from edgemeta.cli import main
from edgemeta.config import make
from edgemeta.errors import BadConfig
from edgemeta.learners.group import Group, _require_devices
from edgemeta.processes import Place, place
from edgemeta.search import jobs
from edgemeta.stages import trainings
from edgemeta.stages.run_folder import RunFolder
from tests.blobs import blob_pool


def write(path: Path, change: int = 0) -> Path:
    pool = blob_pool(classes=25, seed=0)
    images = pool.x.numpy().copy()
    images[5, 0, 3, 4] ^= change
    np.savez(path, x=images, y=np.repeat(np.arange(25), 10))
    return path


def job_of(root: Path, **settings) -> jobs.Job:
    given = {"run": root / "run", "data": "npz", "root": root / "blobs.npz", "in_shape": (1, 12, 12)}
    given |= {"arch": "tapered", "learners": ("protonet",), "way": 4, "episodes": 4, "progress": False}
    config = make(configs.Train, given | settings)
    return trainings.jobs_of(config, RunFolder(config.run))[1]["protonet"]


@pytest.fixture
def job(tmp_path):
    write(tmp_path / "blobs.npz")
    return job_of(tmp_path)


@pytest.fixture
def started(monkeypatch):
    """`started(rank, world)`: as torchrun would have started this process."""

    def set_up(rank: int, world: int) -> None:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        said = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
        for name, value in (said | {"TORCHELASTIC_RUN_ID": "tests", "MASTER_ADDR": "localhost"}).items():
            monkeypatch.setenv(name, str(value))

    return set_up


def test_one_process_of_torchruns_trains_what_is_missing_as_a_worker_would(job, started, tmp_path):
    other = replace(job, weights=str(tmp_path / "other.safetensors"), keep=None)
    jobs.run_job(other)
    started(0, 1)
    with Group() as group:
        trainings.together([job], group)
        assert Path(job.weights).read_bytes() == Path(other.weights).read_bytes()
        written = Path(job.weights).stat().st_mtime_ns
        trainings.together([job], group)
    assert Path(job.weights).stat().st_mtime_ns == written and not Path(job.keep).exists()


def test_shards_change_what_is_trained_and_precision_does(job, tmp_path):
    split, half = job_of(tmp_path, shards=3), job_of(tmp_path, precision="bf16")
    assert (split.training.shards, split.training.tasks) == (3, 3) and half.precision == "bf16"
    assert len({job.weights, split.weights, half.weights}) == 3
    assert job_of(tmp_path, workers=5).weights == job.weights


def test_more_processes_than_parts_are_refused(job, tmp_path):
    trainings._require_work(job_of(tmp_path, shards=2), 2)
    with pytest.raises(BadConfig, match="protonet has 1 to share of each update, .* 2 processes; give --shards 2, or"):
        trainings._require_work(job, 2)


def test_a_pixel_tells_data_apart_and_so_do_weights_and_settings(job, tmp_path):
    """Not a sample of the images: all of them."""
    facts = trainings._facts([job])
    (tmp_path / "other").mkdir()
    moved = replace(job, data=replace(job.data, root=str(write(tmp_path / "other" / "blobs.npz"))))
    assert trainings._facts([moved]) == facts  # where it lies does not matter
    changed = replace(job, data=replace(job.data, root=str(write(tmp_path / "changed.npz", change=1))))
    for differs, own in (("data 'npz'", changed), ("training 'protonet'", replace(job, seed=1))):
        other = trainings._facts([own])
        assert [name for name in facts if facts[name] != other[name]] == [differs]
    slow = jobs.crew(job.ops, "protonet")[1].init(rng=None)
    starts = []
    for name in ("one", "two"):
        slow["0.beta"] = slow["0.beta"] + 1
        warm = jobs.save_weights(tmp_path / f"{name}.safetensors", slow)
        starts.append(trainings._facts([replace(job, warm=str(warm))]))
    assert [key for key in starts[0] if starts[0][key] != starts[1][key]] == ["weights that 'protonet' starts from"]


@pytest.mark.parametrize("rank", [0, 1])
def test_other_commands_are_for_one_process_and_one_says_so(capsys, started, rank, tmp_path):
    started(rank, 2)
    assert main(["report", "--run", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert ("torchrun started 2 processes, and `report` is the work of one" in told) == (rank == 0)
    assert told.count("\n") == (rank == 0) and not list(tmp_path.iterdir())


def test_where_torchrun_put_it(started):
    assert place() == Place(0, 1, 0, 1, launched=False)
    started(1, 2)
    assert place() == Place(1, 2, 1, 2, launched=True)


def test_each_process_has_a_device_of_its_own():
    _require_devices(Place(4, 8, 0, 4), 4)
    with pytest.raises(BadConfig, match="started 4 .* there are 2 CUDA devices; give --nproc-per-node 2"):
        _require_devices(Place(4, 8, 0, 4), 2)
