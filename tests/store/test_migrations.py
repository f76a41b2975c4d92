from __future__ import annotations

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, inspect, text

from marketplace.store import events as chain_log
from marketplace.store import migrations
from marketplace.store.engine import Store
from marketplace.store.migrations import upgrade
from tests.flow.gateway import market_tables
from tests.registry.histories import address, event


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


def test_place_that_was_one_number_becomes_log_and_part_and_back(empty_store):
    made = event("Deposited", 3, 7, buyer=address(1), amount=5)
    _migrate(empty_store, "0001")
    with empty_store.engine.begin() as connection:
        columns = "block_number, log_index, block_hash, tx_hash, contract, name, subject, args"
        values = f"3, 28674, '{made.block_hash}', '{made.tx_hash}', 'Escrow', 'Deposited', 's', '{{}}'"
        connection.execute(text(f"INSERT INTO chain_event ({columns}) VALUES ({values})"))  # noqa: S608
    upgrade(empty_store)
    with empty_store.transaction() as db:
        (stored,) = chain_log.all_events(db)
        assert (stored.place, stored.subject, stored.tx_hash) == ((3, 7, 2), "s", made.tx_hash)
        assert len(chain_log.add_events(db, [made])) == 1
    _migrate(empty_store, "0001", down=True)
    with empty_store.engine.connect() as connection:
        found = connection.execute(text("SELECT log_index FROM chain_event ORDER BY log_index"))
        assert [row[0] for row in found] == [7 * 4096, 7 * 4096 + 2]


def _migrate(store: Store, revision: str, *, down: bool = False) -> None:
    with store.engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrations._HERE))
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, revision)
