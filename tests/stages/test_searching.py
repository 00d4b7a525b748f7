"""The same command on a shared storage joins the search, and goes on when another machine is gone."""

import json
import os
import signal
import time
from contextlib import closing

import numpy as np
import optuna
import pytest

from edgemeta import pipeline
from edgemeta.errors import EdgemetaError
from edgemeta.latency import profile as profiles
from edgemeta.search import claims
from edgemeta.search.storage import Database, address, plain
from edgemeta.stages import assemble
from tests import copies, postgres
from tests.blobs import blob_pool


@pytest.fixture
def asked(tmp_path):
    """A search of a second or two."""
    pool = blob_pool(classes=25, seed=0)
    np.savez(tmp_path / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(25), 10))
    return {
        "space": "tiny", "in_shape": (1, 12, 12), "data": "npz", "root": tmp_path / "blobs.npz", "way": 4,
        "cache": tmp_path / "cache", "device": "null", "latency_ms": 0.06, "rungs": (20, 40), "eval_episodes": 10,
        "trials": 6, "workers": 1, "progress": False,
    }  # fmt: skip


def ranking(folder):
    return [(row["picks"], row["score"], row["fidelity"]) for row in read(folder)["ranking"]]


def read(folder):
    return json.loads((folder / "search.json").read_text())


def machine(folder, settings) -> None:
    """Another machine, as far as a process can be one."""
    os.chdir(folder)
    claims.GRACE_S = 1.0
    pipeline.search(**settings)


@pytest.mark.timeout(120)
def test_the_search_of_a_machine_that_is_killed_ends_as_if_it_had_not_been(asked, postgresql, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "GRACE_S", 1.0)
    shared = asked | {"storage": postgresql.url}
    other = copies.started(machine, tmp_path, shared | {"run": tmp_path / "other"})
    with closing(Database(address(postgresql.url))) as database:
        end = time.monotonic() + 60
        while not _claimed(database) and time.monotonic() < end:
            time.sleep(0.05)
    other.kill()
    other.join()
    assert other.exitcode == -signal.SIGKILL, "it had not ended"
    pipeline.search(**shared, run=tmp_path / "one")
    pipeline.search(**asked, run=tmp_path / "lone")
    assert ranking(tmp_path / "one") == ranking(tmp_path / "lone")
    assert (
        len(set(trained(postgresql.url)))
        == len(trained(postgresql.url))
        == len(trained(f"sqlite:///{tmp_path}/lone/ledger.sqlite"))
    )
    told = json.dumps(read(tmp_path / "one"))
    assert postgres.PASSWORD not in told and "edge:***@" in told
    pipeline.report(run=tmp_path / "one", progress=False)  # from what the folder holds
    assert postgres.PASSWORD not in (tmp_path / "one" / "report.html").read_text()


def trained(url):
    """Network and episodes of every training, in any study."""
    storage = optuna.storages.RDBStorage(plain(address(url)))
    studies = [storage.get_all_trials(study._study_id) for study in storage.get_all_studies()]
    rows = [json.loads(trial.user_attrs["trial"]) for trials in studies for trial in trials]
    storage.remove_session()
    storage.engine.dispose()
    return [(tuple(row["arch"]["picks"]), row["fidelity"]) for row in rows]


def _claimed(database):
    try:
        return database.run("read", lambda on: on.exec_driver_sql("SELECT count(*) FROM edgemeta_claims").scalar())
    except EdgemetaError:
        return 0  # the tables are not there yet


def test_host_is_the_machine_that_began(asked, tmp_path, monkeypatch):
    shared = asked | {
        "storage": f"sqlite:///{tmp_path}/shared.sqlite",
        "device": "host",
        "trials": 2,
        "latency_ms": 9.0,
    }
    timed = []

    def host_profile(folder, space, **_):
        timed.append(folder.root.name)
        found = profiles.load("null")
        profiles.save(found, folder.profile(space.name))
        return found

    monkeypatch.setattr("edgemeta.stages.searching.host_profile", host_profile)
    synthetic = profiles.load("null").cpu
    monkeypatch.setattr(assemble.machine, "cpu", lambda: synthetic)
    pipeline.search(**shared, run=tmp_path / "one")
    with pytest.warns(UserWarning, match="'host' is the machine that began this search") as told:
        monkeypatch.setattr(assemble.machine, "cpu", lambda: "another processor")
        pipeline.search(**shared, run=tmp_path / "two")
    assert timed == ["one"] and len(told) == 1
    assert ranking(tmp_path / "one") == ranking(tmp_path / "two")
    assert read(tmp_path / "one")["winner"]["measured"] and not read(tmp_path / "two")["winner"]["measured"]
