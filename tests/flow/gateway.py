"""A gateway on loopback with a chain that is only rows."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import itertools
import json
import random
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from sqlalchemy import Table
from starlette.applications import Starlette

from marketplace.api.app import create_app
from marketplace.api.routes.system import Check, Health
from marketplace.chain.deployment import Deployment
from marketplace.dispatch.terms import Terms
from marketplace.flow import Market
from marketplace.funding.vault import Vault
from marketplace.keeper.clockwork import Clockwork
from marketplace.openai.answers import KEEP_ALIVE_SECONDS
from marketplace.protocol import wire
from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.messages import Open
from marketplace.protocol.signing import Signer
from marketplace.store import sessions, tables
from marketplace.store.engine import Store
from marketplace.store.migrations import upgrade
from marketplace.store.tables import NodeRow, SessionRow
from marketplace.telemetry.metrics import Metrics

NOW_MS = 1_800_000_000_000
NOW_AT = NOW_MS // 1000
BUYER = Signer(b"\x11" * 32)
_SEEDS = itertools.count(1)
CHAT_MODEL = keccak(b"chat model")
EMBED_MODEL = keccak(b"embed model")
DEPLOYMENT = Deployment(
    chain_id=31337,
    genesis_hash=b"\x01" * 32,
    deployed_block=1,
    token="0x" + "11" * 20,
    registry="0x" + "22" * 20,
    escrow="0x5FbDB2315678afecb367f032d93F642f64180aa3",
    court="0x" + "44" * 20,
    treasury="0x" + "33" * 20,
    token_symbol="TUSD",
    token_decimals=6,
    min_stake_atoms=1_000,
    max_session_seconds=86_400,
    grace_seconds=900,
    challenge_seconds=21_600,
)
DOMAIN = DEPLOYMENT.domain


@dataclass
class Clock:
    """Time that only moves when told."""

    now_ms: int = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


def seeded(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes  # noqa: S311 - test data


class QuietServer(uvicorn.Server):
    """A server that leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


@dataclass
class Gateway:
    """One running gateway."""

    market: Market
    clock: Clock
    url: str
    http: httpx2.AsyncClient
    app: Starlette
    numbers: itertools.count = field(default_factory=lambda: itertools.count(1))

    @property
    def store(self) -> Store:
        return self.market.store

    async def tick(self) -> None:
        await Clockwork(self.market).step()

    def put_node(self, node_id: int, *, stake: int = 10_000, epoch: int = 1) -> Signer:
        signer = Signer(keccak(b"node key %d %d" % (node_id, epoch)))
        with self.store.transaction() as tx:
            row = NodeRow(
                node_id=node_id,
                owner=Signer(keccak(b"owner %d" % node_id)).address,
                epoch=epoch,
                signer=signer.address,
                encryption_key="0x" + "00" * 32,
                settler=signer.address,
                uri="",
                stake_atoms=stake,
                earnings_atoms=0,
            )
            tx.merge(row)
        return signer

    def put_session(self, key: str, node_id: int, atoms: int = 10_000_000, **columns: Any) -> str:
        number = next(self.numbers)
        terms = Open(
            buyer=BUYER.address,
            key=key,
            node_id=node_id,
            amount_atoms=atoms,
            open_before=NOW_AT + 600,
            expires_at=NOW_AT + 3600,
            salt=keccak(b"session %d" % number),
        )
        session_id = to_hex(terms.digest(DOMAIN))
        values = {
            "session_id": session_id,
            "buyer": BUYER.address,
            "key": key,
            "node_id": node_id,
            "key_epoch": 1,
            "deposited_atoms": atoms,
            "paid_atoms": 0,
            "through_seq": 0,
            "expires_at": NOW_AT + 3600,
            "opened_block": 1,
        }
        with self.store.transaction() as tx:
            tx.add(SessionRow(**(values | columns)))
        return session_id

    def session(self, session_id: str) -> SessionRow:
        with self.store.reading() as tx:
            row = sessions.find(tx, session_id)
        assert row is not None
        return row

    def set_session(self, session_id: str, **columns: Any) -> None:
        with self.store.transaction() as tx:
            row = sessions.find(tx, session_id)
            for name, value in columns.items():
                setattr(row, name, value)

    async def new_key(self) -> tuple[str, str]:
        body = (await self.http.post("/v1/keys", json={"label": "test"})).json()
        return body["api_key"], body["address"]

    def rows(self) -> str:
        """Everything in the database, to show that nothing changed."""
        with self.store.reading() as tx:
            found = {
                name: sorted(map(repr, tx.connection().execute(table.select())))
                for name, table in market_tables().items()
                if name not in {"node", "delegate_key"}
            }
        return json.dumps(found)


def market_tables() -> dict[str, Table]:
    """Tables of the market, without those of a ledger that a test may have imported too."""
    kinds = [kind for kind in vars(tables).values() if isinstance(kind, type) and hasattr(kind, "__table__")]
    return {kind.__tablename__: kind.__table__ for kind in kinds}


@functools.cache
def _migrated() -> Path:
    """An empty market database, made once a run."""
    path = Path(tempfile.mkdtemp(prefix="wattline-tests-")) / "market.db"
    store = Store(f"sqlite:///{path}")
    upgrade(store)
    store.close()
    atexit.register(shutil.rmtree, path.parent)
    return path


def database_bytes(folder: Path) -> bytes:
    """All that is on disk of the market's database: the file, and what SQLite keeps beside it."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("market.db*")))


@contextlib.asynccontextmanager
async def gateway(
    path: Path, *, clock: Clock | None = None, terms: Terms | None = None, url: str | None = None
) -> AsyncIterator[Gateway]:
    """A gateway over the database at `path`; a second one over the same path is a restart."""
    clock = clock or Clock()
    store = Store(url or f"sqlite:///{path / 'market.db'}")
    if url is None and not (path / "market.db").exists():
        shutil.copy(await asyncio.to_thread(_migrated), path / "market.db")
    await asyncio.to_thread(upgrade, store)
    market = Market(
        store,
        DEPLOYMENT,
        Vault(b"\x07" * 32, seeded(7)),
        clock=clock,
        random=seeded(next(_SEEDS)),
        terms=terms or Terms(),
        metrics=Metrics(),
    )
    await market.restart()
    health = Health(checks=lambda: [Check(name="loops", ok=True)], lag_blocks=lambda: 0)
    app = create_app(market, health, max_body_bytes=1 << 20)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app,
        log_config=None,
        lifespan="off",
        ws_max_size=wire.MAX_FRAME_BYTES,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    server = QuietServer(config)
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0)
    try:
        async with httpx2.AsyncClient(base_url=base, timeout=20) as http:
            yield Gateway(market=market, clock=clock, url=base, http=http, app=app)
    finally:
        market.hang_up()
        server.should_exit = True
        await serving
        market.close()
        store.close()
