"""A database that several machines search with: its address, its patience, and its errors without secrets."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

from optuna.storages import RDBStorage
from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from edgemeta.config import without_secrets
from edgemeta.errors import BadConfig, EdgemetaError, first_line
from edgemeta.files import write_bytes

T = TypeVar("T")
PATIENCE_S = 300.0  # a server that restarts is waited for
PAUSE_S = (0.1, 5.0)  # between two tries: the first, and the longest
LAYOUT = 0x65646765  # of the lock, any number of our own
KINDS = ("postgresql", "sqlite")


def address(given: str) -> URL:
    """`postgresql://user@host/database`, or `sqlite:///file` for processes of one machine."""
    try:
        url = make_url(given)
    except (ArgumentError, ValueError) as error:
        raise BadConfig(
            "--storage is no address of a database; give postgresql://USER@HOST/DATABASE, or sqlite:///FILE "
            "for processes of one machine"
        ) from error
    kind = url.get_backend_name()
    if kind not in KINDS:
        raise BadConfig(f"--storage {shown(url)}: {kind} is none of {', '.join(KINDS)}; give one of these")
    if kind == "sqlite" and not url.database:
        raise BadConfig("--storage sqlite:// names no file; give sqlite:///FILE")
    if kind == "postgresql" and "+" not in url.drivername:
        url = url.set(drivername="postgresql+psycopg")
    return url


def shown(url: URL) -> str:
    """The address as it may be printed: a password is `***`, and the driver is nobody's concern."""
    return without_secrets(url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True))


def plain(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def options(url: URL) -> dict[str, object]:
    """How SQLAlchemy connects: a connection that the server has closed is noticed; SQLite waits for its lock."""
    return {"connect_args": {"timeout": 60}} if url.get_backend_name() == "sqlite" else {"pool_pre_ping": True}


def engine(url: URL) -> Engine:
    try:
        return create_engine(url, **options(url))
    except ModuleNotFoundError as error:
        raise BadConfig(
            f"--storage {shown(url)} needs {error.name}; install it: pip install 'edgemeta[postgresql]'"
        ) from error


def patiently(work: Callable[[], T], verb: str, place: str, *, patience_s: float = PATIENCE_S, advice: str = "") -> T:
    """What `work` returns. While the database cannot be reached it is tried again, for so long; then, and for any
    other error, one line."""
    end, pause_s = time.monotonic() + patience_s, PAUSE_S[0]
    while True:
        try:
            return work()
        except EdgemetaError:
            raise
        except Exception as error:  # SQLAlchemy, Alembic, Optuna and the driver each have their own
            if not unreachable(error) or time.monotonic() >= end:
                told = advice or "see that the server runs and lets this user in, then run the same again"
                raise EdgemetaError(f"cannot {verb} {place}: {reason(error)}; {told}") from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S[1])


def unreachable(error: BaseException) -> bool:
    """Whether it is the connection that failed, or a lock, and not what was asked."""
    for cause in _causes(error):
        if isinstance(cause, DBAPIError) and cause.connection_invalidated:
            return True
        if isinstance(cause, OperationalError | InterfaceError):
            return "sqlite3" not in type(cause.orig).__module__ or "locked" in str(cause.orig)
    return False


def reason(error: BaseException) -> str:
    """The first line of the innermost error."""
    *_, last = _causes(error)
    return without_secrets(first_line(last))


def _causes(error: BaseException) -> list[BaseException]:
    found = [error]
    while cause := found[-1].__cause__:
        found.append(cause)
    return found


class Database:
    """Transactions on an address, each tried again while it cannot be reached."""

    def __init__(self, url: URL):
        self.place, self._engine = shown(url), engine(url)
        self._file = Path(str(url.database)) if url.get_backend_name() == "sqlite" else None

    def run(self, verb: str, work: Callable[[Connection], T], *, patience_s: float = PATIENCE_S) -> T:
        return patiently(lambda: self.once(work), verb, self.place, patience_s=patience_s)

    def once(self, work: Callable[[Connection], T]) -> T:
        with self._engine.begin() as connection:
            return work(connection)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While tables are laid out: of two processes that begin at once, one waits."""
        if self._file:
            with _locked(self._file.parent):
                if not self._file.exists():
                    _lay_out(self._file)
                yield
            return
        # A wrong address is told at once; a server that goes away later is waited for.
        with patiently(self._engine.connect, "reach", self.place, patience_s=0.0) as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LAYOUT})
            try:
                yield
            finally:
                connection.invalidate()  # which lets go; a connection that is kept would keep the lock


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _lay_out(path: Path) -> None:
    """Create Optuna's empty tables whole or not at all: killed while they are written, a file cannot be read."""
    write_bytes(path, _tables())


@cache
def _tables() -> bytes:
    """The file that Optuna makes. Made once in a process: each time it reads all of its migrations, twice."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "tables.sqlite"
        storage = RDBStorage(f"sqlite:///{fresh}")
        storage.remove_session()
        storage.engine.dispose()
        return fresh.read_bytes()
