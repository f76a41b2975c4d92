"""The ledger's database: SQLite in a file shared by the node's processes, or PostgreSQL by URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Connection, Dialect, Engine, LargeBinary, create_engine, event
from sqlalchemy import String as SqlString
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import registry
from sqlalchemy.types import TypeDecorator
from sqlmodel import Session, SQLModel

from marketplace.protocol.errors import BadRequest, Broken, ErrorCode

SCHEMA_VERSION: Final = 1
MAX_COLUMN_ATOMS: Final = (1 << 63) - 1
_BUSY_TIMEOUT_SECONDS: Final = 30
_BEGIN: Final = "ledger_begin"


class Table(SQLModel, registry=registry()):
    """Base of the ledger's rows; metadata of its own, apart from the market's tables."""


class Atoms(TypeDecorator[int]):
    """Amounts of any size as decimal text; for columns that are never summed in SQL."""

    impl = SqlString(40)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Integer to text."""
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Text to integer."""
        return None if value is None else int(value)


def big(*, index: bool = False, nullable: bool = False) -> Any:
    """Signed 64-bit column."""
    return Column(BigInteger, index=index, nullable=nullable)


def blob(*, primary_key: bool = False, index: bool = False, nullable: bool = False) -> Any:
    """Column of bytes."""
    return Column(LargeBinary(), primary_key=primary_key, index=index, nullable=nullable)


def atoms() -> Any:
    """Column of an amount that may exceed 63 bits."""
    return Column(Atoms(), nullable=False)


class Database:
    """Short transactions over one database; no network and no inference inside one."""

    def __init__(self, url: str) -> None:
        """Opens lazily.

        Raises:
            BadRequest: not a URL of a SQLite file or of PostgreSQL.
        """
        self.url = _readable(url)
        self.engine = _sqlite(self.url) if self.is_sqlite else _postgres(self.url)
        self._writing = self.engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a SQLite file."""
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One write transaction; SQLite takes the lock at once, so what is read here stays true."""
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent look."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    def create(self) -> None:
        """Creates missing tables. Idempotent, and safe from several processes at once."""
        try:
            Table.metadata.create_all(self.engine)
        except OperationalError:
            # Two processes found the same table missing; the second look finds it made.
            Table.metadata.create_all(self.engine)

    def close(self) -> None:
        """Closes pooled connections."""
        self.engine.dispose()


def check_version(found: str | None) -> None:
    """Refuses a ledger written by another schema.

    Raises:
        Broken: the ledger is of another version.
    """
    if found is not None and int(found) != SCHEMA_VERSION:
        raise Broken(
            ErrorCode.INTERNAL,
            f"ledger has schema {found}, this release reads {SCHEMA_VERSION}; use the release that wrote it",
        )


def _readable(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "ledger URL is unreadable") from error
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"ledger must be sqlite or postgresql, got {backend}")
    if backend == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "a SQLite ledger needs a file: sqlite:///path/ledger.db")
    return parsed.set(drivername="postgresql+psycopg") if backend == "postgresql" else parsed


def _sqlite(url: URL) -> Engine:
    engine = create_engine(
        url, connect_args={"timeout": _BUSY_TIMEOUT_SECONDS, "check_same_thread": False}, pool_size=16
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgres(url: URL) -> Engine:
    # Serializable would turn every guarded update into a retry loop; the guards themselves are enough.
    return create_engine(url, pool_pre_ping=True, pool_size=8)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own BEGIN comes too late and is never IMMEDIATE; we begin ourselves.
    connection.isolation_level = None
    cursor = connection.cursor()
    # Rollback journal, not WAL: SQLite before 3.51.3 can corrupt a WAL database under concurrent writers.
    cursor.execute("PRAGMA journal_mode=DELETE")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(str(connection.get_execution_options().get(_BEGIN, "BEGIN")))
