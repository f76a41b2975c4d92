from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, inspect

from marketplace.store.engine import Store
from marketplace.store.migrations import upgrade
from tests.flow.gateway import market_tables


def test_migrations_give_exactly_the_tables_of_the_code_and_may_run_again(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/market.db")
    upgrade(store)
    upgrade(store)
    ours = MetaData()
    for table in market_tables().values():
        table.to_metadata(ours)
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), ours) == []
        assert set(inspect(connection).get_table_names()) == {*ours.tables, "alembic_version"}
    store.close()
