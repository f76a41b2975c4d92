from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text, update

from marketplace.protocol.errors import BadRequest
from marketplace.store import engine
from marketplace.store.engine import Store
from marketplace.store.tables import AccountRow, FileLineRow, KeyRow
from tests.hardhat import ROOT
from tests.keeper.stores import sqlite_store

BUYER = "0x" + "11" * 20


class PowerCutError(Exception):
    pass


def balance(store: Store) -> int | None:
    with store.reading() as db:
        row = db.get(AccountRow, BUYER)
        return row.balance_atoms if row else None


def test_transaction_commits_on_leaving(store: Store) -> None:
    with store.transaction() as db:
        db.add(AccountRow(buyer=BUYER, balance_atoms=5))
    assert balance(store) == 5


def test_transaction_rolls_back_on_any_error(store: Store) -> None:
    def cut_short() -> None:
        with store.transaction() as db:
            db.add(AccountRow(buyer=BUYER, balance_atoms=5))
            db.flush()
            raise PowerCutError

    with pytest.raises(PowerCutError):
        cut_short()
    assert balance(store) is None


def test_rows_stay_readable_after_the_commit(store: Store) -> None:
    with store.transaction() as db:
        row = AccountRow(buyer=BUYER, balance_atoms=7)
        db.add(row)
    assert row.balance_atoms == 7


def test_what_is_written_while_reading_is_thrown_away(store: Store) -> None:
    with store.reading() as db:
        db.add(AccountRow(buyer=BUYER, balance_atoms=5))
        db.flush()
    assert balance(store) is None


def test_a_row_found_by_its_key_is_the_one_at_hand(store: Store) -> None:
    with store.transaction() as db:
        added = AccountRow(buyer=BUYER, balance_atoms=5)
        db.add(added)
        assert db.get(AccountRow, BUYER) is added
        assert db.get(AccountRow, "0x" + "22" * 20) is None
    with store.transaction() as db:
        found = db.get(AccountRow, BUYER)
        assert found is not None
        change = update(AccountRow).values(balance_atoms=6)
        db.execute(change, execution_options={"synchronize_session": False})
        assert db.get(AccountRow, BUYER) is found
        assert found.balance_atoms == 5
        db.get(AccountRow, BUYER, populate_existing=True)
        assert found.balance_atoms == 6
        db.expire(found)
        db.get(AccountRow, BUYER)
        assert found.balance_atoms == 6


def test_a_row_is_found_by_a_key_of_two_columns(store: Store) -> None:
    with store.transaction() as db:
        db.add(FileLineRow(file_id="file-1", number=2, body=b"{}"))
    with store.reading() as db:
        row = db.get(FileLineRow, ("file-1", 2))
        assert row is not None
        assert row.body == b"{}"
        assert db.get(FileLineRow, ("file-1", 3)) is None


def test_amounts_of_63_bits_are_kept_exactly(store: Store) -> None:
    with store.transaction() as db:
        db.add(AccountRow(buyer=BUYER, balance_atoms=2**63 - 1))
    assert balance(store) == 2**63 - 1


def test_read_then_write_of_many_threads_loses_nothing(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)
    with store.transaction() as db:
        db.add(AccountRow(buyer=BUYER, balance_atoms=0))

    def add_ten() -> None:
        for _ in range(10):
            with store.transaction() as db:
                row = db.get(AccountRow, BUYER)
                assert row is not None
                row.balance_atoms += 1

    threads = [threading.Thread(target=add_ten) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert balance(store) == 40


def test_sqlite_keeps_a_write_ahead_log_and_syncs_fully(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)
    with store.reading() as db:
        assert db.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert db.execute(text("PRAGMA synchronous")).scalar_one() == 2


def files_of(store: Store) -> bytes:
    path = Path(store.url.database or "")
    return b"".join(one.read_bytes() for one in path.parent.glob(f"{path.name}*"))


def deleted_row(store: Store) -> None:
    """A row written and deleted again; the log of writes has both."""
    with store.transaction() as db:
        db.add(
            KeyRow(address="0x1", secret_hash="1", sealed_key=b"what was sealed", label="", created_at_ms=1)
        )
    with store.transaction() as db:
        db.delete(db.get(KeyRow, "0x1"))
    assert b"what was sealed" in files_of(store)


def test_what_was_deleted_is_in_no_file_once_the_log_is_scrubbed(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)
    deleted_row(store)
    assert store.scrub()
    assert b"what was sealed" not in files_of(store)


def test_a_long_reader_puts_the_scrubbing_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_BUSY_TIMEOUT_SECONDS", 0.05)
    store = sqlite_store(tmp_path)
    with store.reading() as db:
        db.get(AccountRow, BUYER)
        deleted_row(store)
        assert not store.scrub()
    assert store.scrub()
    assert b"what was sealed" not in files_of(store)


def test_backup_of_the_handbook_holds_what_only_the_log_has(tmp_path: Path) -> None:
    (line,) = re.findall(r"```sh\npython -c \"(.*?)\"\n```", (ROOT / "docs" / "operations.md").read_text())
    store = sqlite_store(tmp_path)
    with store.transaction() as db:
        db.add(AccountRow(buyer=BUYER, balance_atoms=7))
    path = Path(store.url.database or "")
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0
    path.rename(tmp_path / "market.db")
    path.with_name(f"{path.name}-wal").rename(tmp_path / "market.db-wal")
    subprocess.run([sys.executable, "-c", line], cwd=tmp_path, check=True, timeout=60)
    assert balance(Store(f"sqlite:///{tmp_path}/copy.db")) == 7


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "not a url"])
def test_a_url_that_cannot_hold_the_market_is_refused(url: str) -> None:
    with pytest.raises(BadRequest):
        Store(url)


@pytest.mark.parametrize("url", ["postgresql://u@h/d", "postgresql+psycopg://u@h/d"])
def test_a_plain_postgresql_url_gets_the_driver_we_ship(url: str) -> None:
    assert Store(url).url.drivername == "postgresql+psycopg"
