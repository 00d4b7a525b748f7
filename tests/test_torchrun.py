"""Processes that torchrun starts: the weights of one process alone, to the bit, and again after one was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from edgemeta import config as configs
from edgemeta.config import make
from edgemeta.processes import context
from edgemeta.search import jobs
from edgemeta.stages import trainings
from edgemeta.stages.run_folder import RunFolder
from tests import rank_script
from tests.blobs import blob_pool
from tests.crews import crew, same, trained_on

ROOT = Path(__file__).resolve().parents[1]


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    paths = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, env={**os.environ, **paths}
    )


@pytest.fixture
def signals():
    """torchrun's agent takes some for its own, in whatever process it runs."""
    kept = {number: signal.getsignal(number) for number in signal.valid_signals()}
    yield
    for number, handler in kept.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.mark.timeout(240)
def test_a_killed_process_is_started_anew_and_training_ends_as_undisturbed(tmp_path, signals):
    """By torchrun's own agent, in this process: its workers are copies of one that has imported torch."""
    context()
    asked = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": tmp_path.name}
    config = LaunchConfig(1, 1, 2, start_method="forkserver", max_restarts=1, **asked)
    elastic_launch(config, rank_script.main)(tmp_path)
    left = {path.stem: load_file(path) for path in tmp_path.glob("*.safetensors")}
    undisturbed = trained_on(crew("anil")[1], rank_script.SETTINGS)
    # The first way through ended at 20 episodes, past the checkpoint after 16 and the one after 20, or not.
    assert set(left) in [{f"rank0-from{n}-after1", f"rank1-from{n}-after1"} for n in (18, 22)]
    assert all(same(found, undisturbed) for found in left.values())


LAUNCHED = """
import time
from edgemeta.processes import ending_with_launcher
with ending_with_launcher(0.05):
    print("here", flush=True)
    time.sleep(600)
"""
LAUNCHER = """
import os, subprocess, sys
command, pipes = [sys.executable, "-c", sys.argv[1]], {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
with subprocess.Popen(command, **pipes) as started:
    started.stdout.readline()
    print(started.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_no_process_stays_when_what_launched_it_was_killed():
    paths = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, LAUNCHED], capture_output=True, text=True, check=False, env=paths
    )
    left = Path("/proc") / done.stdout.strip()
    for _ in range(200):
        if not left.exists() or "\nState:\tZ" in (left / "status").read_text():
            break
        time.sleep(0.05)
    else:
        pytest.fail("it is still there")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_train_is_shared_and_one_process_writes_and_tells(tmp_path):
    """The command line, from a file of images to weights and accuracies."""
    pool = blob_pool(classes=25, seed=0)
    np.savez(tmp_path / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(25), 10))
    settings = {"run": tmp_path / "run", "data": "npz", "root": tmp_path / "blobs.npz", "in_shape": (1, 12, 12)}
    settings |= {"arch": "tapered", "learners": ("protonet",), "way": 4, "episodes": 12, "shards": 2}
    settings |= {"test_episodes": 2, "workers": 1, "patience": 9, "eval_episodes": 4}
    flags = [f"--{name.replace('_', '-')}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
             for name, value in settings.items()]  # fmt: skip
    done = torchrun("-m", "--", "edgemeta.cli", "train", "--no-progress", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("4w1s") == 1 and not done.stderr
    config = make(configs.Train, settings | {"progress": False, "run": tmp_path / "alone"})
    job = trainings.jobs_of(config, RunFolder(config.run))[1]["protonet"]
    jobs.run_job(job)
    (found,) = (tmp_path / "run" / "weights").iterdir()
    assert found.name == Path(job.weights).name and found.read_bytes() == Path(job.weights).read_bytes()
    assert json.loads((tmp_path / "run" / "train.json").read_text())["weights"] == {"protonet": str(found)}
