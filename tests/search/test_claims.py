"""Several processes on one storage: each network is trained by one of them, whatever becomes of the others."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from edgemeta.errors import BadConfig
from edgemeta.search.claims import Claims
from edgemeta.search.storage import Database, address, shown

GRACE_S = 0.6


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shared.sqlite"
    found = request.getfixturevalue("postgresql").url
    database = Database(address(found))
    for table in ("members", "claims", "weights", "notes"):
        database.run("clear", lambda on, table=table: on.exec_driver_sql(f"DROP TABLE IF EXISTS edgemeta_{table}"))
    database.close()
    return found


@pytest.fixture
def join(url):
    """Another process's part."""
    databases = []

    def make(grace_s=GRACE_S):
        databases.append(Database(address(url)))
        return Claims(databases[-1], grace_s=grace_s)

    yield make
    for database in databases:
        database.close()


def test_a_job_is_one_process_s_and_its_outcome_everyone_s(join):
    with join() as one, join() as two:
        assert one.claim("a") and not two.claim("a") and two.claim("b")
        assert one.handed("a") == 0 and two.handed("a") is None and two.outcomes(["a", "b"]) == {}
        one.finish("a", "done")
        assert two.outcomes(["a", "b"]) == {"a": "done"} and not two.claim("a")


def test_what_a_process_has_not_finished_it_gives_back(join):
    with join() as one:
        with join() as two:
            assert two.claim("a") and two.claim("b")
            two.finish("b", "done")
        assert one.claim("a") and not one.claim("b")
        assert one.handed("a") == 0


def test_a_process_that_gives_no_sign_of_life_loses_its_job_and_that_is_counted(join):
    with join() as one, join() as two:
        assert one.claim("a") and not two.claim("a")
        one._left.set()  # its heart stops
        for _ in range(100):
            if two.claim("a"):
                break
            two._left.wait(GRACE_S / 10)
        assert one.handed("a") is None and two.handed("a") == 1
        one.finish("a", "late")  # it wakes up again
        assert two.outcomes(["a"]) == {}


def test_a_beating_heart_keeps_its_job(join):
    with join() as one, join() as two:
        assert one.claim("a")
        for _ in range(20):
            assert not two.claim("a")
            two._left.wait(GRACE_S / 8)


def test_what_ended_before_is_done_again_when_it_is_asked_for(join):
    """It crashed, or what it left is lost: a search does not ask otherwise."""
    with join() as one:
        assert one.claim("a")
        one.finish("a", "crashed")
    with join() as one, join() as two:
        assert one.outcomes(["a"]) == {}
        assert one.claim("a") and not two.claim("a") and one.handed("a") == 1
        one.finish("a", "done")
        assert two.outcomes(["a"]) == one.outcomes(["a"]) == {"a": "done"}


def test_of_many_at_once_one_has_the_job(join):
    long_s = 60.0  # else, on a busy machine, one takes the other for dead
    with join(long_s) as one, join(long_s) as two, ThreadPoolExecutor(2) as threads:
        for job in map(str, range(20)):
            assert sum(threads.map(lambda claims, job=job: claims.claim(job), (one, two))) == 1


def test_weights_and_notes_of_one_are_there_for_the_other(join, tmp_path):
    kept, brought = tmp_path / "one" / "a.safetensors", tmp_path / "two" / "a.safetensors"
    kept.parent.mkdir()
    kept.write_bytes(b"\x00weights")
    with join() as one, join() as two:
        assert not two.bring(brought) and two.kept() == set()
        one.keep(kept)
        one.keep(kept)
        assert two.kept() == {"a"} and two.bring(brought) and brought.read_bytes() == b"\x00weights"
        assert two.noted("x") is None
        assert one.note_once("x", "first") == two.note_once("x", "second") == two.noted("x") == "first"


def test_a_layout_that_fails_keeps_nobody_waiting(url):
    with closing(Database(address(url))) as one, closing(Database(address(url))) as two:
        with pytest.raises(KeyError), one.alone():
            raise KeyError
        with two.alone():
            assert two.run("read", lambda on: on.exec_driver_sql("SELECT 1").scalar()) == 1


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("not an address", "give postgresql://USER@HOST/DATABASE"),
        ("mysql://me@host/db", "mysql is none of postgresql, sqlite"),
        ("sqlite://", "names no file"),
    ],
)
def test_addresses_that_lead_nowhere(given, match):
    with pytest.raises(BadConfig, match=match):
        address(given)


@pytest.mark.parametrize(
    "given",
    ["postgresql://me:s3cret@host:5/db", "postgresql://host/db?user=me&password=s3cret", "postgresql://a:s3cret@b"],
)
def test_passwords_are_not_shown(given):
    assert "s3cret" not in shown(address(given)) and "***" in shown(address(given))
