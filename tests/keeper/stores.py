"""Empty databases for tests: SQLite always, PostgreSQL where `WATT_TEST_POSTGRES_URL` names one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlmodel import SQLModel

from marketplace.store import tables
from marketplace.store.engine import Store

POSTGRES = "WATT_TEST_POSTGRES_URL"
_numbers = itertools.count()


def create_tables(store: Store) -> Store:
    """All tables of the market, and none of the node's ledger that a process may also know."""
    ours = [
        kind.__table__
        for kind in vars(tables).values()
        if isinstance(kind, type) and issubclass(kind, SQLModel) and hasattr(kind, "__table__")
    ]
    SQLModel.metadata.create_all(store.engine, tables=ours)
    return store


def sqlite_store(folder: Path, name: str = "market") -> Store:
    return create_tables(Store(f"sqlite:///{folder}/{name}.db"))


@contextmanager
def postgres_store() -> Iterator[Store]:
    """All tables in a schema of their own, gone afterwards."""
    with empty_postgres_store() as store:
        yield create_tables(store)


@contextmanager
def empty_postgres_store() -> Iterator[Store]:
    """A schema of its own with nothing in it, gone afterwards."""
    url = os.environ[POSTGRES]
    schema = f"watt_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE SCHEMA {schema}")
        store = Store(f"{url}?options=-csearch_path%3D{schema}")
        try:
            yield store
        finally:
            store.close()
            admin.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        found = sqlite_store(tmp_path)
        yield found
        found.close()
    elif POSTGRES not in os.environ:
        pytest.skip(f"{POSTGRES} names no PostgreSQL server")
    else:
        with postgres_store() as found:
            yield found


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A database of each kind without a table."""
    if request.param == "sqlite":
        found = Store(f"sqlite:///{tmp_path}/empty.db")
        yield found
        found.close()
    elif POSTGRES not in os.environ:
        pytest.skip(f"{POSTGRES} names no PostgreSQL server")
    else:
        with empty_postgres_store() as found:
            yield found
