"""Whole experiments of NNI: on this machine, told to stop, and on another one over ssh."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("nni", reason="no NNI here; `make nni` tests with it")

import psutil

from edgemeta.errors import BadConfig, EdgemetaError
from edgemeta.integrations.nni import experiment as experiments
from edgemeta.integrations.nni.experiment import Machine, Service, experiment_config
from edgemeta.integrations.nni.spaces import search_space
from edgemeta.stages.run_folder import RunFolder
from edgemeta.types import Arch
from tests.boards import server  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]  # an experiment is six processes that import torch or NNI
SEARCH = """
import json, sys
from edgemeta.integrations.nni.experiment import Machine, Service, search

if __name__ == "__main__":
    service, machines, settings = json.loads(sys.argv[1])
    for trial in search(Service(machines=tuple(Machine(**of) for of in machines), **service), **settings):
        print("trial", json.dumps([trial.arch.picks, trial.score, trial.fidelity, trial.cost.latency_ms]))
"""


@pytest.fixture
def settings(tmp_path, blobs):
    """A search of moments; `home` is where NNI lists its experiments."""
    (tmp_path / "home").mkdir()
    data = {"data": "npz", "root": str(blobs), "cache": str(tmp_path / "cache"), "way": 4}
    size = {"space": "tiny", "in_shape": [1, 12, 12], "rungs": [2], "eval_episodes": 10, "trials": 3}
    return data | size | {"run": str(tmp_path / "run"), "device": "null", "latency_ms": 0.06, "progress": False}


def begin(tmp_path, settings, machines=(), **service):
    (tmp_path / "search.py").write_text(SEARCH)
    asked = json.dumps([{"concurrency": 2} | service, machines, settings])
    environ = os.environ | {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    with open(tmp_path / "out", "w") as out:
        command = [sys.executable, str(tmp_path / "search.py"), asked]
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environ, cwd=tmp_path)


def finish(process, tmp_path):
    code, said = process.wait(200), (tmp_path / "out").read_text()
    assert code == 0, said
    return [json.loads(line.removeprefix("trial ")) for line in said.splitlines() if line.startswith("trial ")]


def descendants(process):
    return psutil.Process(process.pid).children(recursive=True)


def wait_for(what, process, tmp_path):
    """What `what` gives, once it gives something."""
    until = time.monotonic() + 100
    while not (found := what()):
        assert time.monotonic() < until and process.poll() is None, (tmp_path / "out").read_text()
        time.sleep(0.1)
    return found


def words(process):
    """The command line of a process, which may be ending."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def trials_of(process):
    return [found for found in descendants(process) if "edgemeta.integrations.nni.trial" in words(found)]


def gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=15)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_an_experiment_here_fills_the_ledger(settings, tmp_path, problem):
    found = finish(begin(tmp_path, settings), tmp_path)
    assert len(found) == 3 and sorted(found, key=lambda row: -row[1]) == found
    assert len(list(RunFolder(Path(settings["run"])).weights.glob("*-2.safetensors"))) == 3
    for picks, score, fidelity, latency_ms in found:
        arch = Arch(problem.space.name, tuple(picks))
        assert latency_ms == problem.cost(arch).latency_ms <= 0.06 and fidelity == 2 and 0 <= score <= 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_ends_us_ends_every_process_of_the_experiment(settings, tmp_path, number):
    """Even a kill that leaves no time to clean up; meanwhile nobody but this machine is answered."""
    process = begin(tmp_path, settings | {"rungs": [10**6]})
    try:
        wait_for(lambda: trials_of(process), process, tmp_path)
        family = descendants(process)
        listening = [c for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert listening and {c.laddr.ip for c in listening} == {"127.0.0.1"}
        process.send_signal(number)
        assert process.wait(60) == (128 + number if number == signal.SIGTERM else -number)
        assert gone(family)
    finally:
        process.kill()


def test_an_experiment_over_ssh(settings, tmp_path, server):  # noqa: F811
    """NNI installs itself anew on each machine, which this one's pip is told not to reach out for."""
    (server.home / ".config" / "pip").mkdir(parents=True, exist_ok=True)
    (server.home / ".config" / "pip" / "pip.conf").write_text("[global]\nno-index = true\n")
    port, user = (re.search(rf"{name} (\S+)", server.config.read_text())[1] for name in ("Port", "User"))
    python = str(Path(sys.executable).parent)
    there = {"host": "127.0.0.1", "port": int(port), "user": user, "key": f"{server.folder}/id", "python": python}
    found = finish(begin(tmp_path, settings | {"trials": 2}, [there], address="127.0.0.1"), tmp_path)
    assert len(found) == 2 and all(fidelity == 2 for _, _, fidelity, _ in found)
    assert list(server.home.rglob("*-2.safetensors")) and not list(Path(settings["run"]).glob("weights/*"))
    assert not [p for p in psutil.process_iter() if str(server.home) in words(p)]


def test_both_services_are_asked_for_the_same(problem, tmp_path):
    key = tmp_path / "id"
    key.touch()
    there = Service(machines=(Machine("board", "pi", key=key),), address="10.0.0.1")
    asked = {"folder": str(tmp_path), "ledger": str(tmp_path / "l"), "searcher": "random", "trials": 5}
    configs = [experiment_config(problem, service, tmp_path, asked).canonical_copy() for service in (Service(), there)]
    assert [config.training_service.platform for config in configs] == ["local", "remote"]
    for config in configs:
        assert config.search_space == search_space(problem.space) and config.max_trial_number == 5
    assert configs[1].training_service.machine_list[0].ssh_key_file == str(key)


def test_what_cannot_work_is_told_before_anything_starts(problem, tmp_path, monkeypatch):
    with pytest.raises(BadConfig, match=r"Service\(address=...\)"):
        Service(machines=(Machine("board", "pi"),))
    absent = Service(machines=(Machine("board", "pi", key=tmp_path / "none"),), address="10.0.0.1")
    with pytest.raises(BadConfig, match="no key .*none for pi@board"):
        experiment_config(problem, absent, tmp_path, {"trials": 1})
    with pytest.raises(EdgemetaError, match="no machine is known as nosuch.invalid"):
        experiments._addresses(Service(machines=(Machine("nosuch.invalid", "pi"),), address="10.0.0.1"))
    monkeypatch.setattr(experiments, "find_spec", lambda name: None)
    with pytest.raises(EdgemetaError, match=r"pip install 'edgemeta\[nni\]'"):
        experiments.search(run=tmp_path / "run")
