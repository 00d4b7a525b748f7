"""A search that two processes share ends where a lone one does; each network is trained once."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest

from edgemeta.errors import EdgemetaError
from edgemeta.search import SEARCHERS, ledger, run, storage, under_way
from edgemeta.search.claims import Claims
from edgemeta.search.ledger import Ledger
from edgemeta.search.run import Search
from edgemeta.search.storage import Database, address
from edgemeta.search.under_way import UnderWay

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return address(f"sqlite:///{tmp_path}/shared.sqlite")
    return address(request.getfixturevalue("postgresql").url)


def searched(problem, url, folder, workers=1):
    """One process's search, on a worker thread, with a folder of its own."""
    own = replace(problem, weights=folder / "weights")
    with (
        closing(Database(url)) as database,
        closing(Ledger(url, own.space, own.task)) as book,
        Claims(database) as claims,
        ThreadPoolExecutor(1) as executor,
    ):
        searcher = SEARCHERS["evolution"](own.space, seed=0)
        made = Search(own, searcher, "evolution", book, executor, workers, progress=False, claims=claims)
        ranking = made.run(trials=8, seconds=100)
        return [(trial.arch, trial.score, trial.fidelity) for trial in ranking], book.trials()


def test_two_processes_end_where_one_does(problem, url, start, tmp_path, monkeypatch):
    wanted = [(trial.arch, trial.score, trial.fidelity) for trial in start(problem).run(trials=8, seconds=100)]
    problem, trained = replace(problem, seed=problem.seed), Counter()
    real = under_way.run_job
    monkeypatch.setattr(under_way, "run_job", lambda job: (trained.update([job.weights]), real(job))[1])
    with ThreadPoolExecutor(2) as machines:
        folders = [tmp_path / name for name in ("one", "two")]
        found = list(machines.map(lambda folder: searched(problem, url, folder), folders))
    assert [ranking for ranking, _ in found] == [wanted, wanted]
    names = [path.rpartition("/")[2] for path in trained]
    assert len(names) == len(set(names)) == len(found[0][1]) == len(found[1][1])
    parts = Counter(path.rpartition("/weights")[0] for path in trained)
    assert len(parts) == 2, "both have trained"


def test_a_process_of_many_workers_looks_no_further_ahead_than_the_others(problem, tmp_path, monkeypatch):
    """What is proposed depends on how many networks are under way."""
    ahead, start = [], UnderWay.start
    monkeypatch.setattr(UnderWay, "start", lambda self: (ahead.append(len(self.asked)), start(self)))
    searched(problem, address(f"sqlite:///{tmp_path}/shared.sqlite"), tmp_path / "one", workers=7)
    assert max(ahead) == run.LOOKAHEAD


def test_another_s_failure_is_a_failure_here(problem, url, tmp_path, monkeypatch):
    def run_job(job):
        time.sleep(0.02)
        raise MemoryError("too big")

    monkeypatch.setattr(under_way, "run_job", run_job)
    with ThreadPoolExecutor(2) as machines:
        runs = [machines.submit(searched, problem, url, tmp_path / name) for name in ("one", "two")]
        for each in runs:
            with pytest.raises(EdgemetaError, match="5 trainings in a row broke, the last with MemoryError: too big"):
                each.result()


def test_a_server_that_restarts_is_waited_for(problem, postgresql, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "PAUSE_S", (0.05, 0.2))
    url, jobs, real = address(postgresql.url), Counter(), under_way.run_job
    problem = replace(problem, seed=3)

    def run_job(job):
        jobs.update([job.weights])
        if len(jobs) == 3:
            postgresql.stop()
            postgresql.start()
        return real(job)

    monkeypatch.setattr(under_way, "run_job", run_job)
    ranking, trials = searched(problem, url, tmp_path / "one")
    assert len(ranking) == 8 and len(trials) == len(jobs) and set(jobs.values()) == {1}


def test_a_server_that_is_gone_is_told_without_its_password(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "OPENING_S", 0.1)
    gone = address("postgresql://edge:s3cret@127.0.0.1:1/none")
    with pytest.raises(EdgemetaError, match=r"cannot reach postgresql://edge:\*\*\*@127.0.0.1:1/none: ") as caught:
        Ledger(gone, problem.space, problem.task)
    assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)
