"""Works that wait for the writer share a commit, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest
from sqlalchemy import event

from marketplace.ground import Ground
from marketplace.protocol.errors import BadRequest, ErrorCode, LostRace
from marketplace.store.tables import AccountRow
from tests.keeper.stores import sqlite_store


@pytest.fixture
def ground(tmp_path):
    ground = Ground(sqlite_store(tmp_path))
    yield ground
    ground.close()
    ground.store.close()


@contextlib.asynccontextmanager
async def busy(ground: Ground):
    """The writer works until the block is left: what is asked for inside waits together."""
    gate, begun = threading.Event(), threading.Event()

    def hold(_tx):
        begun.set()
        assert gate.wait(10)

    holding = asyncio.create_task(ground.write(hold))
    await asyncio.to_thread(begun.wait)
    yield
    gate.set()
    await holding


def put(number: int, atoms: int = 1):
    def work(tx):
        tx.add(AccountRow(buyer=f"0x{number:040x}", balance_atoms=atoms))
        return number

    return work


def balances(ground: Ground) -> dict[int, int]:
    with ground.store.reading() as tx:
        return {int(row.buyer, 16): row.balance_atoms for row in tx.query(AccountRow)}


def commits(ground: Ground) -> list[int]:
    counted: list[int] = []
    event.listen(ground.store.engine, "commit", lambda _connection: counted.append(1))
    return counted


async def asked(ground: Ground, *works):
    """All at once while the writer is busy; what comes of each."""
    async with busy(ground):
        tasks = [asyncio.create_task(ground.write(work)) for work in works]
        await asyncio.sleep(0)
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_works_that_wait_together_share_one_commit(ground):
    counted = commits(ground)
    assert await asked(ground, *(put(number) for number in range(5))) == [0, 1, 2, 3, 4]
    assert balances(ground) == dict.fromkeys(range(5), 1)
    assert len(counted) == 1


async def test_one_that_fails_is_undone_by_itself(ground):
    def fails(tx):
        put(7)(tx)
        tx.flush()
        raise BadRequest(ErrorCode.INVALID_REQUEST, "no")

    first, failed, last = await asked(ground, put(1), fails, put(2))
    assert (first, last) == (1, 2)
    assert isinstance(failed, BadRequest)
    assert balances(ground) == {1: 1, 2: 1}


async def test_one_that_breaks_a_rule_of_the_database_is_undone_by_itself(ground):
    first, failed, last = await asked(ground, put(1), put(1, atoms=9), put(2))
    assert (first, last) == (1, 2)
    assert "UNIQUE" in str(failed)
    assert balances(ground) == {1: 1, 2: 1}


async def test_each_sees_what_those_before_it_wrote(ground):
    def look(tx):
        return tx.get(AccountRow, f"0x{1:040x}").balance_atoms

    assert await asked(ground, put(1, atoms=5), look) == [1, 5]


async def test_one_that_lost_a_race_is_done_again(ground):
    tries = []

    def races(tx):
        put(3)(tx)
        tries.append(1)
        if len(tries) < 3:
            raise LostRace(ErrorCode.LEASE_LOST, "again")
        return 3

    assert await asked(ground, put(1), races) == [1, 3]
    assert len(tries) == 3
    assert balances(ground) == {1: 1, 3: 1}


async def test_what_cannot_be_committed_is_done_for_nobody(ground):
    def refuse(_connection):
        raise OSError("disk full")

    def fails(_tx):
        raise BadRequest(ErrorCode.INVALID_REQUEST, "no")

    engine = ground.store.engine
    async with busy(ground):
        tasks = [asyncio.create_task(ground.write(work)) for work in (put(1), fails, put(2))]
        await asyncio.sleep(0)
        event.listen(engine, "commit", refuse)
    first, failed, last = await asyncio.gather(*tasks, return_exceptions=True)
    event.remove(engine, "commit", refuse)
    assert [str(error) for error in (first, failed, last)] == ["disk full"] * 3
    assert balances(ground) == {}
    assert await ground.write(put(4)) == 4


async def test_one_whose_caller_has_gone_is_not_done(ground):
    async with busy(ground):
        gone = asyncio.create_task(ground.write(put(1)))
        stays = asyncio.create_task(ground.write(put(2)))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    assert await stays == 2
    assert balances(ground) == {2: 1}


async def test_more_than_fit_into_one_are_all_done(ground):
    counted = commits(ground)
    assert await asked(ground, *(put(number) for number in range(70))) == list(range(70))
    assert len(balances(ground)) == 70
    assert len(counted) == 3
