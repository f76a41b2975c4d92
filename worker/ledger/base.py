"""The ledger's database: SQLite in a file shared by the node's processes, or PostgreSQL by URL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

import pysqlite3
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Dialect,
    Engine,
    Insert,
    LargeBinary,
    create_engine,
    event,
)
from sqlalchemy import String as SqlString
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import registry
from sqlalchemy.types import TypeDecorator
from sqlmodel import Session, SQLModel

from marketplace.protocol.errors import BadRequest, Broken, ErrorCode

SCHEMA_VERSION: Final = 1
MAX_COLUMN_ATOMS: Final = (1 << 63) - 1
_BUSY_TIMEOUT_SECONDS: Final = 30
# What a full disk or a locked database comes as; for loops that outlive it.
DatabaseFailed = SQLAlchemyError
_BEGIN: Final = "ledger_begin"
_ROWS_AT_ONCE: Final = 1_000
# Any number that nobody else locks in the same database.
_CREATING: Final = 0x57415454


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


class Plain:
    """SQL text with `?` for values, on either database, by the driver's own cursor.

    Building and mapping a query, and each of the toolkit's layers, cost far more than what is asked here.
    """

    def __init__(self, cursor: Any, *, sqlite: bool) -> None:
        self._cursor = cursor
        self._sqlite = sqlite

    def run(self, statement: str, values: tuple[Any, ...]) -> int:
        """Runs one statement; gives the number of rows it changed."""
        self._execute(statement, values)
        return int(self._cursor.rowcount)

    def rows(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Rows of a query, or what a statement returns."""
        self._execute(statement, values)
        found: list[tuple[Any, ...]] = self._cursor.fetchall()
        return found

    def row(self, statement: str, values: tuple[Any, ...]) -> dict[str, Any] | None:
        """The first row by column name, or None; bytes are bytes on both databases."""
        found = self.rows(statement, values)
        if not found:
            return None
        names = (column[0] for column in self._cursor.description)
        return {
            name: bytes(value) if isinstance(value, memoryview) else value
            for name, value in zip(names, found[0], strict=True)
        }

    def insert(self, into: str, rows: Sequence[tuple[Any, ...]], otherwise: str = "") -> None:
        """Adds all rows by one statement; row by row is most of what many small rows cost."""
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            marks = ", ".join([f"({places(len(some[0]))})"] * len(some))
            self._execute(f"{into} VALUES {marks} {otherwise}", tuple(chain.from_iterable(some)))

    def _execute(self, statement: str, values: tuple[Any, ...]) -> None:
        self._cursor.execute(statement if self._sqlite else statement.replace("?", "%s"), values)


def places(number: int) -> str:
    """So many `?`, for a row or a list."""
    return ", ".join("?" * number)


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

    @contextmanager
    def write_plain(self) -> Iterator[Plain]:
        """A write transaction without the mapper: for what happens many times a second."""
        with self._toolkit_errors(), self._writing.begin() as connection:
            yield self._plain(connection)

    @contextmanager
    def read_plain(self) -> Iterator[Plain]:
        """One consistent look, as plain."""
        with self._toolkit_errors(), self.engine.connect() as connection, connection.begin():
            yield self._plain(connection)

    def _plain(self, connection: Connection) -> Plain:
        return Plain(connection.connection.cursor(), sqlite=self.is_sqlite)

    @contextmanager
    def _toolkit_errors(self) -> Iterator[None]:
        """Errors of the driver come as those of the toolkit, whichever way a statement went."""
        dialect = self.engine.dialect
        family = dialect.loaded_dbapi.Error
        try:
            yield
        except family as error:
            raise DBAPIError.instance(None, None, error, family, dialect=dialect) from error

    def put(self, row: Table, *, newer: str | None = None) -> None:
        """Stores a row in place of the one with its key, also while others put the same; the last one wins.

        With `newer`, one whose column of that name is lower changes nothing.
        """
        # PostgreSQL lets two transactions find no row and both insert one, so a look before does not do.
        table = Table.metadata.tables[str(row.__tablename__)]
        insert = sqlite.insert if self.is_sqlite else postgresql.insert
        statement = insert(table).values(row.model_dump())
        kept = statement.on_conflict_do_update(
            index_elements=list(table.primary_key),
            set_=row.model_dump(),
            where=None if newer is None else table.c[newer] <= statement.excluded[newer],
        )
        with self.write() as session:
            session.connection().execute(kept)

    def insert_new(self, table: type[Table]) -> Insert:
        """Statement that adds rows and leaves those alone whose key is there already."""
        insert = sqlite.insert if self.is_sqlite else postgresql.insert
        return insert(Table.metadata.tables[str(table.__tablename__)]).on_conflict_do_nothing()

    def create(self) -> None:
        """Creates missing tables. Idempotent, and safe from several processes at once."""
        # A lock comes before the look, or two processes would find the same table missing; SQLite's is taken.
        with self._writing.begin() as connection:
            if not self.is_sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_CREATING})")
            Table.metadata.create_all(connection)

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
    # SQLite of our own: the one in Python may be too old for a write-ahead log (decision 33).
    engine = create_engine(
        url,
        module=pysqlite3,
        connect_args={"timeout": _BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        pool_size=16,
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
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(str(connection.get_execution_options().get(_BEGIN, "BEGIN")))
