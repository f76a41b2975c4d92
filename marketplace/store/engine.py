"""The database behind the market: SQLite in a file, or PostgreSQL by URL alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import cache
from threading import Lock
from typing import Any, Final

import pysqlite3
from sqlalchemy import Connection, Engine, Select, bindparam, create_engine, event, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Mapper
from sqlmodel import Session

from marketplace.protocol.errors import BadRequest, ErrorCode, LostRace

_BUSY_TIMEOUT_SECONDS: Final = 20
_BEGIN: Final = "watt_begin"
_KEY: Final = "key"
# PostgreSQL: deadlock, and a snapshot that is too old.
_DEADLOCKS: Final = frozenset({"40P01", "40001"})


class Store:
    """Short database transactions; never keep one open over a call to the network."""

    def __init__(self, url: str) -> None:
        """Opens lazily: the first transaction connects.

        Raises:
            BadRequest: the URL is unreadable, of another database, or of SQLite in memory.
        """
        self.url = _readable(url)
        self.engine: Engine = _sqlite(self.url) if self.is_sqlite else _postgres(self.url)
        self._writing = self.engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        # SQLite lets others sleep and look again until a writer is done; threads that queue wake at once.
        self._turn: AbstractContextManager[object] = Lock() if self.is_sqlite else nullcontext()

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a SQLite file."""
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One write transaction: commits on leaving, rolls back on any error.

        SQLite takes the write lock at once, so that what is read here cannot change before it is written.
        Rows stay readable after the commit.

        Raises:
            LostRace: PostgreSQL ended it because two waited for each other.
        """
        try:
            with self._turn, _Keyed(self._writing, expire_on_commit=False) as session, session.begin():
                yield session
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _DEADLOCKS:
                raise
            raise LostRace(ErrorCode.NOT_READY, "two transactions waited for each other") from error

    @contextmanager
    def together(self) -> Iterator[Callable[[], AbstractContextManager[Session]]]:
        """One write transaction of several parts: each as `transaction`, on disk once all is committed."""
        with self._turn, self._writing.begin() as connection:
            yield lambda: _part(connection)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One consistent look; writes made inside are thrown away."""
        with _Look(self.engine, expire_on_commit=False) as session:
            yield session

    def scrub(self) -> bool:
        """Empties the write-ahead log, which holds what was deleted until it is overwritten.

        False when somebody read for longer than the time-out; it is in the log until the next time.
        """
        if not self.is_sqlite:
            return True
        with self._turn, closing(self.engine.raw_connection()) as connection:
            busy = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        return not busy

    def close(self) -> None:
        """Closes every pooled connection."""
        self.engine.dispose()


@contextmanager
def _part(connection: Connection) -> Iterator[Session]:
    session = _Keyed(connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
    with session, session.begin():
        yield session


class _Keyed(Session):
    """A session that finds rows by their key with statements built once (decision 34)."""

    def get(self, entity: Any, ident: Any, **options: Any) -> Any:
        """As in any session, which builds the statement anew: that takes longer than the database does."""
        mapper, query = _by_key(entity)
        held = mapper.identity_key_from_primary_key((ident,)) in self.identity_map
        if held or options or isinstance(ident, tuple):
            return super().get(entity, ident, **options)
        return self.scalars(query, {_KEY: ident}).one_or_none()


class _Look(_Keyed):
    """A session that reads a row by its key once: nobody writes in it, so the row stays what it is."""

    def get(self, entity: Any, ident: Any, **options: Any) -> Any:
        """As in any session, which forgets rows that nobody holds."""
        row = super().get(entity, ident, **options)
        self.info[id(row)] = row
        return row


@cache
def _by_key(entity: type[Any]) -> tuple[Mapper[Any], Select[Any]]:
    mapper: Mapper[Any] = inspect(entity)
    return mapper, select(entity).where(mapper.primary_key[0] == bindparam(_KEY))


def _readable(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "database URL is unreadable") from error
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"database must be sqlite or postgresql, got {backend}")
    if backend == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, "a SQLite database needs a file: sqlite:///path/market.db"
        )
    return parsed.set(drivername="postgresql+psycopg") if backend == "postgresql" else parsed


def _sqlite(url: URL) -> Engine:
    # SQLite of our own: the one in Python may be too old for a write-ahead log (decision 33).
    engine = create_engine(
        url,
        module=pysqlite3,
        connect_args={"timeout": _BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        pool_size=8,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgres(url: URL) -> Engine:
    # Readers see one snapshot per statement; every write that depends on a read is guarded or locked.
    return create_engine(url, pool_pre_ping=True, pool_size=8)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own implicit BEGIN comes too late and is never IMMEDIATE; we begin ourselves.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    # What a buyer had deleted must not stay readable in free pages of the file.
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(str(connection.get_execution_options().get(_BEGIN, "BEGIN")))
